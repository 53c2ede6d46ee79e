//! Programs in pods: what `kubectl exec` does.

use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::sleep;

/// How often a program is started before it counts as one that cannot be.
const START_TRIES: u32 = 10;

/// What a program wrote, and how it ended.
pub struct Ran {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Why it failed, unless its exit code is 0.
    pub failure: Option<String>,
}

/// Runs a program in a container of a pod and returns its standard output.
///
/// # Errors
/// When it cannot be started or its exit code is not 0; the message holds what it wrote to standard error.
pub async fn exec(pods: &Api<Pod>, pod: &str, container: &str, command: &[&str]) -> anyhow::Result<String> {
    let ran = run(pods, pod, container, command).await?;
    match ran.failure {
        None => Ok(ran.stdout),
        Some(why) => bail!("{} in pod {pod}: {why}: {}", command.join(" "), ran.stderr.trim()),
    }
}

/// The same of a program whose exit code is an answer too.
///
/// # Errors
/// When it cannot be started or its output cannot be read.
pub async fn run(pods: &Api<Pod>, pod: &str, container: &str, command: &[&str]) -> anyhow::Result<Ran> {
    let what = || format!("{} in pod {pod}", command.join(" "));
    let attach = AttachParams::default().container(container);
    let mut process = start(pods, pod, command, &attach).await.with_context(what)?;
    let status = process.take_status();
    let (stdout, stderr) = join(read(process.stdout()), read(process.stderr())).await;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let failure = match status.as_ref().and_then(|status| status.status.as_deref()) {
        Some("Success") => None,
        _ => Some(
            status.and_then(|status| status.message).unwrap_or_else(|| "the connection ended".to_string()),
        ),
    };
    Ok(Ran { stdout: stdout.with_context(what)?, stderr: stderr.with_context(what)?, failure })
}

/// Starts it. A kubelet asks the API server whether it may, and says no where that takes long, as it does in emulated machines:
/// nothing has been started then.
pub(super) async fn start(
    pods: &Api<Pod>,
    pod: &str,
    command: &[&str],
    attach: &AttachParams,
) -> Result<AttachedProcess, kube::Error> {
    let mut tries = 1..START_TRIES;
    loop {
        match pods.exec(pod, command.iter().copied(), attach).await {
            Err(error) if error.to_string().contains("Authorization error") && tries.next().is_some() => {
                eprintln!(
                    "the kubelet of pod {pod} did not learn in time whether it may run a program: once more"
                );
                sleep(Duration::from_secs(2)).await;
            }
            other => return other,
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
