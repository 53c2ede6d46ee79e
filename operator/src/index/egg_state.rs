//! One Egg: what of it is in force, and on which nodes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use l7egg_crds::{AssignedHost, AssignedPod, EggReference, PolicySpec};

use super::shares::Sharers;
use super::{Assignment, Changes, Egg, EggKey, Labels, Node, ObjectKey, Observed, Pod, Selection, Tally};
use crate::naming::assignment_key;

#[derive(Debug)]
pub(super) struct EggState {
    pub egg: Egg,
    in_force: Option<InForce>,
    pub nodes: BTreeMap<String, NodeState>,
    sharers: Sharers,
}

/// The last accepted state of an Egg. It stays when an edit is not accepted.
#[derive(Debug)]
struct InForce {
    generation: i64,
    policy: Arc<PolicySpec>,
    selection: Option<Selection>,
    /// Uids of pods that an earlier operator had selected, by a selector that is no longer to be read.
    kept: HashSet<String>,
    /// The same for nodes, by name.
    kept_nodes: HashSet<String>,
}

/// What of one node the Egg selects: itself, or some pods.
#[derive(Debug)]
pub(super) struct NodeState {
    pub assignment: ObjectKey,
    pub host: Option<AssignedHost>,
    /// Each with whether it can be limited: in the node's network it cannot, and so has no part of a shared rate.
    pub pods: BTreeMap<ObjectKey, bool>,
    pub tally: Option<Tally>,
}

/// Whose and for which node an EggAssignment is.
#[derive(Debug)]
pub(super) struct Target {
    pub egg: EggKey,
    pub node: String,
}

impl EggState {
    pub fn new(egg: Egg) -> Self {
        let mut state = EggState { egg, in_force: None, nodes: BTreeMap::new(), sharers: Sharers::default() };
        state.enforce();
        state
    }

    /// Takes the Egg as it is now; whether that can select other pods.
    pub fn update(&mut self, egg: Egg) -> bool {
        let before = self.selection().cloned();
        let kept_any = self
            .in_force
            .as_ref()
            .is_some_and(|in_force| !in_force.kept.is_empty() || !in_force.kept_nodes.is_empty());
        self.egg = egg;
        self.enforce();
        kept_any || before.as_ref() != self.selection()
    }

    /// Takes up the newest of an earlier operator's assignments, if nothing is in force; whether it did. Those of other namespaces are
    /// somebody else's.
    pub fn recover<'a>(&mut self, assignments: impl Iterator<Item = &'a Observed>) -> bool {
        let Err(rejection) = &self.egg.spec else { return false };
        if self.in_force.is_some() {
            return false;
        }
        let namespace = self.egg.key.assignment_namespace().to_owned();
        let own: Vec<&Assignment> = assignments
            .filter(|observed| observed.key.namespace == namespace)
            .filter_map(|observed| observed.assignment.as_ref())
            .filter(|assignment| assignment.egg.uid == self.egg.uid)
            .collect();
        let Some(newest) = own.iter().max_by_key(|assignment| assignment.egg.generation) else {
            return false;
        };
        self.in_force = Some(InForce {
            generation: newest.egg.generation,
            policy: newest.policy.clone(),
            selection: rejection.selection.clone(),
            kept_nodes: own
                .iter()
                .filter(|assignment| assignment.host.is_some())
                .map(|assignment| assignment.node.clone())
                .collect(),
            kept: own.iter().flat_map(|assignment| &assignment.pods).map(|pod| pod.uid.clone()).collect(),
        });
        self.follow_sharers();
        true
    }

    pub fn in_force_generation(&self) -> Option<i64> {
        self.in_force.as_ref().map(|in_force| in_force.generation)
    }

    pub fn policy(&self) -> Option<&Arc<PolicySpec>> {
        self.in_force.as_ref().map(|in_force| &in_force.policy)
    }

    pub fn reads_namespace_labels(&self) -> bool {
        self.selection().is_some_and(Selection::reads_namespace_labels)
    }

    pub fn selects(&self, namespace_labels: Option<&Labels>, pod: &Pod) -> bool {
        let kept = self.in_force.as_ref().is_some_and(|in_force| in_force.kept.contains(&pod.assigned.uid));
        kept || self.selection().is_some_and(|selection| {
            selection.selects(&pod.assigned.namespace, namespace_labels, &pod.labels)
        })
    }

    /// Whether the Egg is for nodes and not for pods.
    pub fn is_for_nodes(&self) -> bool {
        let kept = self.in_force.as_ref().is_some_and(|in_force| !in_force.kept_nodes.is_empty());
        kept || matches!(self.selection(), Some(Selection::Nodes(_)))
    }

    pub fn selects_node(&self, node: &Node) -> bool {
        let kept = self.in_force.as_ref().is_some_and(|in_force| in_force.kept_nodes.contains(&node.name));
        kept || self.selection().is_some_and(|selection| selection.selects_node(&node.labels))
    }

    /// Selects a node or not, and marks it if that is news.
    pub fn place_node(
        &mut self,
        name: &str,
        host: Option<&AssignedHost>,
        targets: &mut HashMap<ObjectKey, Target>,
        changes: &mut Changes,
    ) {
        if host.is_none() && !self.nodes.contains_key(name) {
            return;
        }
        let node = self.node(name, targets);
        if node.host.as_ref() == host {
            return;
        }
        node.host = host.cloned();
        self.changed(name, targets, changes);
    }

    /// Puts a pod among those selected on its node, or takes it out, and marks its node if that is news.
    pub fn place(
        &mut self,
        pod: &Pod,
        selected: bool,
        changed: bool,
        targets: &mut HashMap<ObjectKey, Target>,
        changes: &mut Changes,
    ) {
        if !selected && !self.nodes.contains_key(&pod.node) {
            return;
        }
        let node = self.node(&pod.node, targets);
        let now = selected.then_some(!pod.assigned.host_network);
        let before = match now {
            Some(is_limited) => node.pods.insert(pod.key(), is_limited),
            None => node.pods.remove(&pod.key()),
        };
        if before != now {
            let namespace = &pod.assigned.namespace;
            // Another pod of the same name may be in another network than the one before.
            let left = before == Some(true) && self.sharers.remove(&pod.node, namespace);
            let came = now == Some(true) && self.sharers.add(&pod.node, namespace);
            // Every node's part of a shared rate is another now.
            if (left || came) && !changes.sharing.contains(&self.egg.key) {
                changes.sharing.insert(self.egg.key.clone());
            }
        }
        if before != now || (selected && changed) {
            self.changed(&pod.node, targets, changes);
        }
    }

    fn node(&mut self, name: &str, targets: &mut HashMap<ObjectKey, Target>) -> &mut NodeState {
        let egg = &self.egg.key;
        self.nodes.entry(name.to_owned()).or_insert_with(|| {
            let assignment = assignment_key(egg, name);
            targets.insert(assignment.clone(), Target { egg: egg.clone(), node: name.to_owned() });
            NodeState { assignment, host: None, pods: BTreeMap::new(), tally: None }
        })
    }

    /// Marks a node of which the Egg selects something else than before.
    fn changed(&mut self, name: &str, targets: &mut HashMap<ObjectKey, Target>, changes: &mut Changes) {
        let egg = &self.egg.key;
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.tally = None;
        changes.desired(&node.assignment, Some(egg));
        changes.status.insert(egg.clone());
        if node.host.is_none() && node.pods.is_empty() {
            targets.remove(&node.assignment);
            self.nodes.remove(name);
        }
    }

    pub fn mark_nodes(&self, changes: &mut Changes) {
        for node in self.nodes.values() {
            changes.desired(&node.assignment, Some(&self.egg.key));
        }
    }

    /// Marks the nodes whose part of a shared rate is another than the last time.
    pub fn mark_shares(&mut self, changes: &mut Changes) {
        for name in self.sharers.take_changed() {
            if let Some(node) = self.nodes.get(name) {
                changes.shares.insert(node.assignment.clone(), Some(self.egg.key.clone()));
            }
        }
    }

    pub fn desired<'a>(&self, node: &str, pod: impl Fn(&ObjectKey) -> Option<&'a Pod>) -> Option<Assignment> {
        let in_force = self.in_force.as_ref()?;
        let NodeState { host, pods, .. } = self.nodes.get(node)?;
        Some(Assignment {
            node: node.to_owned(),
            egg: EggReference {
                kind: self.egg.key.kind,
                namespace: self.egg.key.namespace.clone(),
                name: self.egg.key.name.clone(),
                uid: self.egg.uid.clone(),
                generation: in_force.generation,
            },
            policy: in_force.policy.clone(),
            shares: self.sharers.of_node(node),
            host: host.clone(),
            pods: pods.keys().filter_map(pod).map(|pod| assigned(pod, &in_force.policy)).collect(),
        })
    }

    pub fn stale_nodes(&self) -> Vec<String> {
        self.nodes.iter().filter(|(_, node)| node.tally.is_none()).map(|(name, _)| name.clone()).collect()
    }

    pub fn forget_tally(&mut self, node: &str) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.tally = None;
        }
    }

    pub fn forget_tallies(&mut self) {
        for node in self.nodes.values_mut() {
            node.tally = None;
        }
    }

    pub fn tally(&self) -> Tally {
        let mut total = Tally::default();
        for tally in self.nodes.values().filter_map(|node| node.tally.as_ref()) {
            total.add(tally);
        }
        total
    }

    fn selection(&self) -> Option<&Selection> {
        match (&self.in_force, &self.egg.spec) {
            (Some(in_force), _) => in_force.selection.as_ref(),
            (None, Ok(accepted)) => Some(&accepted.selection),
            (None, Err(rejection)) => rejection.selection.as_ref(),
        }
    }

    fn enforce(&mut self) {
        let Ok(accepted) = &self.egg.spec else { return };
        // An edit that leaves the policy as it was keeps the one that the assignments share.
        let policy = match self.policy() {
            Some(policy) if *policy == accepted.policy => policy.clone(),
            _ => accepted.policy.clone(),
        };
        self.in_force = Some(InForce {
            generation: self.egg.generation,
            policy,
            selection: Some(accepted.selection.clone()),
            kept: HashSet::new(),
            kept_nodes: HashSet::new(),
        });
        self.follow_sharers();
    }

    fn follow_sharers(&mut self) {
        let Some(in_force) = &self.in_force else { return };
        let limited = |(pod, is_limited): (_, &bool)| is_limited.then_some(pod);
        let pods = self
            .nodes
            .iter()
            .flat_map(|(name, node)| node.pods.iter().filter_map(limited).map(move |pod| (name, pod)));
        self.sharers.follow(&in_force.policy, pods);
    }
}

/// Names of containers that an Egg is not for, as many as help to see what was meant: how many a pod has, its author decides.
const OTHER_CONTAINERS: usize = 16;

/// The pod as the Egg's assignment has it: with its containers only where the Egg is for certain ones.
fn assigned(pod: &Pod, policy: &PolicySpec) -> AssignedPod {
    let mut assigned = pod.assigned.clone();
    let mut others = 0;
    assigned.containers.retain(|name| {
        let is_meant = policy.containers.contains(name);
        others += usize::from(!is_meant);
        !policy.containers.is_empty() && (is_meant || others <= OTHER_CONTAINERS)
    });
    assigned
}
