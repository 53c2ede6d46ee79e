//! The taint that keeps new pods off a node whose agent is not ready, where nobody would hold them until they are enforced.
//! Off unless it is asked for: it decides where a cluster's pods may run.

mod agents;
mod turns;

use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use l7egg_daemon::revisions::Revisions;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::lease::Term;
use crate::metrics::Metrics;
use crate::pace::sleep_until;
use crate::watch::{ENDS_AFTER, events_by};
use crate::write::MANAGER;

use agents::Agents;
use turns::{TaintError, Turns};

/// Key of the taint; its effect is NoSchedule. Nodes can be registered with it, so that it is there before the first pod.
pub const TAINT: &str = "l7egg.dev/agent-not-ready";
/// What has the rights for it, which the operator has not otherwise.
const MANIFEST: &str = "manifests/agent-taint.yaml";
/// Name of the agents' DaemonSet, and their label.
const AGENT: &str = "l7egg-node-agent";
const NO_SCHEDULE: &str = "NoSchedule";
/// A node's taint is read and written within this, or the API server does not answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Whether this operator may write.
#[derive(Debug)]
struct Leading(watch::Receiver<Term>);

impl Leading {
    /// Waits until that is another than it was. Without an election nobody is left to tell.
    async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until it may not, and not at all if it may not now.
    async fn lost(&mut self) {
        if self.0.wait_for(|leads| !leads.is_on()).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Keeps the taint on the nodes whose agent, a pod in `namespace`, is not ready, and takes it off the others, for as long as this
/// operator leads. Nodes that have no agent are left as they are.
pub async fn run(
    client: Client,
    namespace: String,
    leads: watch::Receiver<Term>,
    revisions: Revisions,
    metrics: Metrics,
) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let labels = format!("app.kubernetes.io/name={AGENT}");
    let ours = watcher::Config::default().timeout(ENDS_AFTER).labels(&labels);
    let events = events_by(MANIFEST, "agents", revisions.watcher(pods, ours), metrics);
    let write = |node: String, ready| {
        let (client, namespace) = (&client, &namespace);
        async move { write(client, namespace, &node, ready).await }
    };
    keep(events, Leading(leads), write).await;
}

/// Writes one node at a time, by what is known of its agents then: with many nodes and a slow API server that is minutes after the news.
async fn keep<F: Future<Output = kube::Result<()>>>(
    events: impl Stream<Item = Event<Pod>>,
    mut leading: Leading,
    write: impl Fn(String, Option<bool>) -> F,
) {
    let mut events = pin!(events);
    let (mut agents, mut turns) = (Agents::default(), Turns::default());
    loop {
        let next = turns.next().map(|(node, at)| (node.to_owned(), at));
        let due = next.as_ref().map(|(_, at)| (*at).into());
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(event) => turns.news(agents.apply(event), Instant::now()),
                None => return,
            },
            () = leading.changed() => turns.news(agents.nodes().map(str::to_owned), Instant::now()),
            () = sleep_until(due) => {
                let Some((node, _)) = next else { continue };
                let ready = agents.is_ready(&node);
                let written = tokio::select! {
                    biased;
                    // Whoever leads then knows better.
                    () = leading.lost() => {
                        turns.clear();
                        continue;
                    }
                    written = timeout(ANSWERED_WITHIN, write(node.clone(), ready)) => written,
                };
                let now = Instant::now();
                match written.map_err(|_| TaintError::Timeout(ANSWERED_WITHIN)).and_then(|it| Ok(it?)) {
                    Ok(()) => turns.done(&node, ready.is_some(), now),
                    Err(error) => turns.failed(&node, &error, now),
                }
            }
        }
    }
}

async fn write(client: &Client, namespace: &str, node: &str, ready: Option<bool>) -> kube::Result<()> {
    let ready = match ready {
        Some(true) => true,
        // Where l7egg is being removed, nobody would take the taint off again.
        unready => {
            let set = Api::<DaemonSet>::namespaced(client.clone(), namespace).get_opt(AGENT).await?;
            let stays = set.is_some_and(|set| set.metadata.deletion_timestamp.is_none());
            if stays && unready.is_none() {
                return Ok(());
            }
            !stays
        }
    };
    let nodes: Api<Node> = Api::all(client.clone());
    let Some(object) = nodes.get_opt(node).await? else { return Ok(()) };
    let now = object.spec.unwrap_or_default().taints.unwrap_or_default();
    let Some(wanted) = taints(&now, ready) else { return Ok(()) };
    // With the version that was read: taints are a list, and others write theirs.
    let patch = json!({"metadata": {"resourceVersion": object.metadata.resource_version}, "spec": {"taints": wanted}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    nodes.patch(node, &params, &Patch::Merge(&patch)).await?;
    match ready {
        true => tracing::info!(node, "the node's agent is ready: taint {TAINT} taken off"),
        false => tracing::warn!(node, "the node's agent is not ready: taint {TAINT} keeps new pods off it"),
    }
    Ok(())
}

/// The node's taints as they should be, if they are not.
fn taints(now: &[Taint], ready: bool) -> Option<Vec<Taint>> {
    let (ours, others): (Vec<&Taint>, Vec<&Taint>) = now.iter().partition(|taint| taint.key == TAINT);
    let is_as_wanted = match ready {
        true => ours.is_empty(),
        false => ours.iter().any(|taint| taint.effect == NO_SCHEDULE),
    };
    if is_as_wanted {
        return None;
    }
    let wanted = Taint { key: TAINT.to_owned(), effect: NO_SCHEDULE.to_owned(), ..Taint::default() };
    Some(others.into_iter().cloned().chain((!ready).then_some(wanted)).collect())
}

#[cfg(test)]
mod tests;
