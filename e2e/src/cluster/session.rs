//! Probes that run for a while: live connections, and watched destinations.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, AttachedProcess};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};

use super::PROBE;
use super::exec::start;
use super::wait::within;
use crate::probe::{Change, HoldReport, Outcome};

const PATIENCE: Duration = Duration::from_secs(10);

/// A program in a pod that prints lines of JSON and ends when it gets a line.
struct Session {
    _process: AttachedProcess,
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    lines: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
    what: String,
}

impl Session {
    async fn start(pods: &Api<Pod>, pod: &str, container: &str, command: &[&str]) -> anyhow::Result<Self> {
        let what = format!("{} in pod {pod}", command.join(" "));
        let attach = AttachParams::default().stdin(true).container(container);
        let mut process = start(pods, pod, command, &attach).await.with_context(|| what.clone())?;
        let streams = process.stdin().zip(process.stdout());
        let (stdin, stdout) = streams.ok_or_else(|| anyhow!("{what}: no standard streams"))?;
        let lines = BufReader::new(Box::new(stdout) as Box<dyn AsyncRead + Send + Unpin>).lines();
        Ok(Session { _process: process, stdin: Box::new(stdin), lines, what })
    }

    async fn next<T: DeserializeOwned>(&mut self, limit: Duration) -> anyhow::Result<T> {
        let line = within(&format!("a line of {}", self.what), limit, self.lines.next_line()).await??;
        let line = line.ok_or_else(|| anyhow!("{} ended", self.what))?;
        serde_json::from_str(&line).with_context(|| format!("{} wrote: {line}", self.what))
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.stdin.write_all(b"\n").await?;
        Ok(self.stdin.flush().await?)
    }
}

/// A live TCP connection of a pod.
pub struct Hold(Session);

impl Hold {
    pub(super) async fn start(
        pods: &Api<Pod>,
        pod: &str,
        container: &str,
        target: &str,
    ) -> anyhow::Result<Self> {
        let mut session =
            Session::start(pods, pod, container, &[PROBE, "hold", target, "--until-line"]).await?;
        let first: serde_json::Value = session.next(PATIENCE).await?;
        if first.get("connected").is_none() {
            bail!("{}: {first}", session.what);
        }
        Ok(Hold(session))
    }

    /// Closes it and tells what became of it meanwhile.
    pub async fn finish(mut self) -> anyhow::Result<HoldReport> {
        self.0.stop().await?;
        self.0.next(PATIENCE).await
    }
}

/// A destination that a pod tries every other millisecond.
pub struct Watching(Session);

impl Watching {
    pub(super) async fn start(
        pods: &Api<Pod>,
        pod: &str,
        container: &str,
        target: &str,
    ) -> anyhow::Result<Self> {
        Ok(Watching(Session::start(pods, pod, container, &[PROBE, "watch", target, "--until-line"]).await?))
    }

    /// Waits until the outcome is `wanted`; the change to it may have been before the call.
    pub async fn until(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&Outcome) -> bool,
    ) -> anyhow::Result<Change> {
        let what = format!("the outcome wanted of {}", self.0.what);
        within(&what, limit, async {
            loop {
                let change: Change = self.0.next(limit).await?;
                if wanted(&change.outcome) {
                    return Ok(change);
                }
            }
        })
        .await?
    }
}
