//! The nodes from inside. Signals to the product's processes: what a crash, an upgrade or a hang looks like.

use anyhow::{Context, ensure};
use futures::future::join_all;

use super::{Cluster, Namespace, Pod, PodPlan};

/// The node agent's process name, as the kernel cuts it.
pub const AGENT: &str = "l7egg-node-agen";
/// The operator's process name.
pub const OPERATOR: &str = "l7egg-operator";
/// The API server's process name, where it runs on a node of the cluster.
pub const API_SERVER: &str = "kube-apiserver";

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ends it without a chance to clean up.
    Kill,
    /// Stops it where it is.
    Stop,
    /// Lets it go on.
    Continue,
}

/// A privileged pod on a node, from which the node's processes can be reached.
pub struct Node(Pod);

impl Node {
    /// One on every node, named `node-0`, `node-1` …
    pub async fn all(cluster: &Cluster, namespace: &Namespace) -> anyhow::Result<Vec<Node>> {
        let plans = cluster.nodes().iter().enumerate();
        let plans = plans.map(|(number, node)| PodPlan::new(&format!("node-{number}")).on(node).privileged());
        let pods = futures::future::try_join_all(plans.map(|plan| namespace.start(plan))).await?;
        Ok(pods.into_iter().map(Node).collect())
    }

    /// One of the numbers that the node's agent serves: `l7egg_datapath_total{counter="denied"}`.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let all = ["nsenter", "-t", "1", "-n", "curl", "-sS", "http://127.0.0.1:9469/metrics"];
        let metrics = self.0.exec(&all).await?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no {name} in:\n{metrics}"))?.parse()?)
    }

    /// The name of the node.
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// Runs a program there, as root of the node.
    pub async fn exec(&self, command: &[&str]) -> anyhow::Result<String> {
        self.0.exec(command).await
    }

    /// Stops every process of this name on the node half a second from now, and lets it go on after some seconds by itself:
    /// nobody can be asked to if it is the API server. Returns how many there are.
    pub async fn pause(&self, comm: &str, seconds: u32) -> anyhow::Result<usize> {
        let script = format!(
            r#"pids=""
               for p in /proc/[0-9]*; do
                 if [ "$(cat "$p/comm" 2>/dev/null)" = {comm} ]; then pids="$pids ${{p#/proc/}}"; echo found; fi
               done
               [ -z "$pids" ] ||
                 (sleep 0.5; kill -STOP $pids; sleep {seconds}; kill -CONT $pids) >/dev/null 2>&1 </dev/null &"#
        );
        Ok(self.0.exec(&["sh", "-c", &script]).await?.lines().count())
    }

    /// Sends a signal to every process of this name on the node, and returns how many there were.
    pub async fn signal(&self, signal: Signal, comm: &str) -> anyhow::Result<usize> {
        let signal = match signal {
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        let script = format!(
            r#"for p in /proc/[0-9]*; do
                 if [ "$(cat "$p/comm" 2>/dev/null)" = {comm} ]; then kill -{signal} "${{p#/proc/}}" && echo sent; fi
               done; true"#
        );
        Ok(self.0.exec(&["sh", "-c", &script]).await?.lines().count())
    }
}

/// The same on several nodes at once; an error if no process was there.
pub async fn signal_all(nodes: &[Node], signal: Signal, comm: &str) -> anyhow::Result<usize> {
    // None is left out because another could not be reached: what was stopped has to go on.
    let counts = join_all(nodes.iter().map(|node| node.signal(signal, comm))).await;
    let count: usize = counts.into_iter().sum::<anyhow::Result<usize>>()?;
    ensure!(count > 0, "no process {comm} on any node: is l7egg installed?");
    Ok(count)
}

/// Pauses it on several nodes at once: see [`Node::pause`].
pub async fn pause_all(nodes: &[Node], comm: &str, seconds: u32) -> anyhow::Result<usize> {
    join_all(nodes.iter().map(|node| node.pause(comm, seconds))).await.into_iter().sum()
}
