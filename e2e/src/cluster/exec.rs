//! Programs in pods: what `kubectl exec` does.

use anyhow::{Context, bail};
use futures::future::join;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Runs a program in a container of a pod and returns its standard output.
///
/// # Errors
/// When it cannot be started or its exit code is not 0; the message holds what it wrote to standard error.
pub async fn exec(pods: &Api<Pod>, pod: &str, container: &str, command: &[&str]) -> anyhow::Result<String> {
    let line = command.join(" ");
    let what = || format!("{line} in pod {pod}");
    let attach = AttachParams::default().container(container);
    let mut process = pods.exec(pod, command.iter().copied(), &attach).await.with_context(what)?;
    let status = process.take_status();
    let (stdout, stderr) = join(read(process.stdout()), read(process.stderr())).await;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    match status.as_ref().and_then(|status| status.status.as_deref()) {
        Some("Success") => Ok(stdout?),
        _ => {
            let why = status
                .and_then(|status| status.message)
                .unwrap_or_else(|| "the connection ended".to_string());
            bail!("{}: {why}: {}", what(), stderr?.trim())
        }
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut text = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut text).await?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
