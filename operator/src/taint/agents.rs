//! Which nodes' agents are ready.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// The agents' pods, by name.
#[derive(Debug, Default)]
pub(super) struct Agents {
    known: BTreeMap<String, Agent>,
    /// Those of a list that is not complete yet: until then, or if it never is, what was known counts.
    listed: BTreeMap<String, Agent>,
}

/// What is known of an agent's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Agent {
    node: String,
    ready: bool,
}

impl Agents {
    /// Takes in what the API server says of them; the nodes that it concerns.
    pub(super) fn apply(&mut self, event: Event<Pod>) -> Vec<String> {
        match event {
            Event::InitApply(pod) => {
                self.listed.extend(agent(&pod).map(|agent| (pod.name_any(), agent)));
                Vec::new()
            }
            Event::Apply(pod) => {
                let Some(agent) = agent(&pod) else { return Vec::new() };
                let node = agent.node.clone();
                let before = self.known.insert(pod.name_any(), agent.clone());
                if before == Some(agent) { Vec::new() } else { vec![node] }
            }
            Event::Delete(pod) => {
                self.known.remove(&pod.name_any()).map(|agent| agent.node).into_iter().collect()
            }
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.known, std::mem::take(&mut self.listed));
                let nodes = before.into_values().map(|agent| agent.node);
                nodes.chain(self.nodes().map(str::to_owned)).collect::<BTreeSet<_>>().into_iter().collect()
            }
        }
    }

    /// The nodes that have one.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.known.values().map(|agent| agent.node.as_str())
    }

    /// Whether some agent of the node is ready; `None` if it has no agent.
    pub(super) fn is_ready(&self, node: &str) -> Option<bool> {
        let mut here =
            self.known.values().filter(|agent| agent.node == node).map(|agent| agent.ready).peekable();
        here.peek()?;
        Some(here.any(|ready| ready))
    }
}

fn agent(pod: &Pod) -> Option<Agent> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True");
    Some(Agent { node, ready: is_ready && pod.metadata.deletion_timestamp.is_none() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::pod;
    use super::*;

    #[test]
    fn a_node_is_due_when_its_agent_changes() {
        let mut agents = Agents::default();
        assert_eq!(agents.apply(Event::Apply(pod("a", "n1", false))), ["n1"]);
        assert_eq!(agents.is_ready("n1"), Some(false));
        assert!(agents.apply(Event::Apply(pod("a", "n1", false))).is_empty());
        assert_eq!(agents.apply(Event::Apply(pod("a", "n1", true))), ["n1"]);
        // An agent that is replaced: the old one may be there for longer than the new one takes.
        let mut old = pod("a", "n1", true);
        old.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert_eq!(agents.apply(Event::Apply(old.clone())), ["n1"]);
        assert_eq!(agents.is_ready("n1"), Some(false));
        agents.apply(Event::Apply(pod("b", "n1", true)));
        assert_eq!(agents.is_ready("n1"), Some(true));
        assert_eq!(agents.apply(Event::Delete(old)), ["n1"]);
        assert_eq!((agents.is_ready("n1"), agents.is_ready("n2")), (Some(true), None));
    }

    #[test]
    fn a_list_counts_when_it_is_complete() {
        let mut agents = Agents::default();
        agents.apply(Event::Apply(pod("a", "n1", true)));
        agents.apply(Event::Init);
        agents.apply(Event::InitApply(pod("b", "n2", true)));
        // One that is refused begins again and again.
        agents.apply(Event::Init);
        assert_eq!((agents.is_ready("n1"), agents.is_ready("n2")), (Some(true), None));
        agents.apply(Event::InitApply(pod("b", "n2", true)));
        assert_eq!(agents.apply(Event::InitDone), ["n1", "n2"], "what has gone meanwhile is news, too");
        assert_eq!((agents.is_ready("n1"), agents.is_ready("n2")), (None, Some(true)));
    }
}
