//! The taint that keeps new pods off a node whose agent is not ready, where nobody would hold them until they are enforced.
//! Off unless it is asked for: it decides where a cluster's pods may run.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use l7egg_daemon::revisions::Revisions;
use serde_json::json;
use tokio::sync::watch;

use crate::lease::Term;
use crate::watch::ENDS_AFTER;
use crate::write::MANAGER;

/// Key of the taint; its effect is NoSchedule. Nodes can be registered with it, so that it is there before the first pod.
pub const TAINT: &str = "l7egg.dev/agent-not-ready";
/// Name of the agents' DaemonSet, and their label.
const AGENT: &str = "l7egg-node-agent";
const NO_SCHEDULE: &str = "NoSchedule";
/// What could not be written is tried again after this long.
const RETRY: Duration = Duration::from_secs(2);
/// A node's taint is read and written within this, or the API server does not answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What is known of an agent's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Agent {
    node: String,
    ready: bool,
}

/// Keeps the taint on the nodes whose agent, a pod in `namespace`, is not ready, and takes it off the others, for as long as this
/// operator leads. Nodes that have no agent are left as they are.
pub async fn run(client: Client, namespace: String, mut leads: watch::Receiver<Term>, revisions: Revisions) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let labels = format!("app.kubernetes.io/name={AGENT}");
    let ours = watcher::Config::default().timeout(ENDS_AFTER).labels(&labels);
    let mut events = pin!(revisions.watcher(pods, ours).default_backoff());
    let (mut agents, mut due) = (BTreeMap::new(), BTreeSet::new());
    loop {
        let retry = if due.is_empty() { Duration::MAX } else { RETRY };
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => due.extend(apply(&mut agents, event)),
                Some(Err(error)) => tracing::debug!(%error, "watch of the agents' pods failed, trying again"),
                None => return,
            },
            // Without an election nobody is left to tell.
            Ok(()) = leads.changed() => {
                due.extend(agents.values().map(|agent: &Agent| agent.node.clone()));
            }
            () = tokio::time::sleep(retry) => {}
        }
        if !leads.borrow().is_on() {
            due.clear();
            continue;
        }
        due = write_all(std::mem::take(&mut due), ANSWERED_WITHIN, |node: String| {
            let (client, namespace, ready) = (&client, &namespace, is_ready(&agents, &node));
            async move { write(client, namespace, &node, ready).await }
        })
        .await;
    }
}

/// The nodes that could not be written. Once the API server does not answer, nobody waits for the others in vain.
async fn write_all<F: Future<Output = kube::Result<()>>>(
    nodes: BTreeSet<String>,
    limit: Duration,
    write: impl Fn(String) -> F,
) -> BTreeSet<String> {
    let mut left = BTreeSet::new();
    let mut nodes = nodes.into_iter();
    while let Some(node) = nodes.next() {
        match tokio::time::timeout(limit, write(node.clone())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(node, %error, "taint {TAINT} of a node cannot be written, tried again");
                left.insert(node);
            }
            Err(_) => {
                tracing::warn!(node, after = ?limit, "taint {TAINT} of a node cannot be written, tried again: the API server does not answer");
                left.insert(node);
                left.extend(nodes.by_ref());
            }
        }
    }
    left
}

/// Takes in what the API server says of agents; the nodes that it concerns.
fn apply(agents: &mut BTreeMap<String, Agent>, event: Event<Pod>) -> Vec<String> {
    match event {
        Event::InitApply(pod) => {
            agents.extend(agent(&pod).map(|agent| (pod.name_any(), agent)));
            Vec::new()
        }
        Event::Apply(pod) => {
            let Some(agent) = agent(&pod) else { return Vec::new() };
            let node = agent.node.clone();
            let before = agents.insert(pod.name_any(), agent.clone());
            if before == Some(agent) { Vec::new() } else { vec![node] }
        }
        Event::Delete(pod) => agents.remove(&pod.name_any()).map(|agent| agent.node).into_iter().collect(),
        Event::Init => {
            agents.clear();
            Vec::new()
        }
        Event::InitDone => agents.values().map(|agent| agent.node.clone()).collect(),
    }
}

fn agent(pod: &Pod) -> Option<Agent> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True");
    Some(Agent { node, ready: is_ready && pod.metadata.deletion_timestamp.is_none() })
}

/// Whether some agent of the node is ready; `None` if it has no agent.
fn is_ready(agents: &BTreeMap<String, Agent>, node: &str) -> Option<bool> {
    let mut here = agents.values().filter(|agent| agent.node == node).map(|agent| agent.ready).peekable();
    here.peek()?;
    Some(here.any(|ready| ready))
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
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, ready: bool) -> Pod {
        let status =
            json!({"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]});
        let object = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": []}, "status": status});
        serde_json::from_value(object).unwrap()
    }

    fn taint(key: &str, effect: &str) -> Taint {
        Taint { key: key.into(), effect: effect.into(), ..Taint::default() }
    }

    #[test]
    fn a_node_is_due_when_its_agent_changes() {
        let mut agents = BTreeMap::new();
        assert_eq!(apply(&mut agents, Event::Apply(pod("a", "n1", false))), ["n1"]);
        assert_eq!(is_ready(&agents, "n1"), Some(false));
        assert!(apply(&mut agents, Event::Apply(pod("a", "n1", false))).is_empty());
        assert_eq!(apply(&mut agents, Event::Apply(pod("a", "n1", true))), ["n1"]);
        // An agent that is replaced: the old one may be there for longer than the new one takes.
        let mut old = pod("a", "n1", true);
        old.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert_eq!(apply(&mut agents, Event::Apply(old.clone())), ["n1"]);
        assert_eq!(is_ready(&agents, "n1"), Some(false));
        apply(&mut agents, Event::Apply(pod("b", "n1", true)));
        assert_eq!(is_ready(&agents, "n1"), Some(true));
        assert_eq!(apply(&mut agents, Event::Delete(old)), ["n1"]);
        assert_eq!((is_ready(&agents, "n1"), is_ready(&agents, "n2")), (Some(true), None));
    }

    #[test]
    fn a_new_list_begins_with_nothing() {
        let mut agents = BTreeMap::new();
        apply(&mut agents, Event::Apply(pod("a", "n1", true)));
        apply(&mut agents, Event::Init);
        apply(&mut agents, Event::InitApply(pod("b", "n2", true)));
        assert_eq!(apply(&mut agents, Event::InitDone), ["n2"]);
        assert_eq!(is_ready(&agents, "n1"), None);
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_answer_is_waited_for_once() {
        let nodes = ["a", "b", "c", "d"].map(str::to_owned);
        let asked = std::cell::RefCell::new(Vec::new());
        let write = async |node: String| {
            asked.borrow_mut().push(node.clone());
            match node.as_str() {
                "a" => Ok(()),
                "b" => Err(kube::Error::LinesCodecMaxLineLengthExceeded),
                _ => std::future::pending().await,
            }
        };
        let left = write_all(nodes.into(), Duration::from_millis(20), write).await;
        assert_eq!(left.into_iter().collect::<Vec<_>>(), ["b", "c", "d"]);
        assert_eq!(*asked.borrow(), ["a", "b", "c"]);
    }

    #[test]
    fn others_taints_stay() {
        let other = taint("node.kubernetes.io/not-ready", "NoSchedule");
        let ours = taint(TAINT, NO_SCHEDULE);
        assert_eq!(taints(&[], true), None);
        assert_eq!(taints(std::slice::from_ref(&other), true), None);
        assert_eq!(taints(&[ours.clone(), other.clone()], false), None);
        assert_eq!(taints(std::slice::from_ref(&other), false), Some(vec![other.clone(), ours.clone()]));
        assert_eq!(taints(&[ours.clone(), other.clone()], true), Some(vec![other.clone()]));
        // As a kubelet may register it, with another effect.
        let foreign = taint(TAINT, "NoExecute");
        assert_eq!(taints(std::slice::from_ref(&foreign), true), Some(vec![]));
        assert_eq!(taints(&[foreign], false), Some(vec![ours]));
    }
}
