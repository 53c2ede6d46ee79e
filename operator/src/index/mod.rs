//! Eggs × pods × namespaces × nodes × EggAssignments: what is, what is to be, and where the two may differ now.
//!
//! Synchronous and without a client: it is told what the API server has, marks what a piece of news can have
//! changed, and answers what is desired. A pod's news cost the Eggs of its namespace and the ClusterEggs;
//! an Egg's news cost the pods of its namespaces.

mod answers;
mod assignments;
mod changes;
mod egg_state;
mod input;
mod key;
mod observed;
mod shares;
mod tally;
#[cfg(test)]
mod tests;
mod unjudged;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use answers::{Sizes, Summary};
pub use changes::Changes;
pub use input::{Accepted, Assignment, Egg, NamedNamespace, Node, Observed, Pod, Rejection};
pub use key::{EggKey, ObjectKey};
pub use l7egg_crds::{Labels, Namespaces, Selection};
pub use tally::{MAX_TROUBLES, Tally, Trouble};

use assignments::share_policy;
use egg_state::{EggState, Target};
use l7egg_crds::{EggKind, EggStatus, SYSTEM_NAMESPACE};
use observed::ObservedSet;

/// All that the operator knows.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: HashMap<String, Namespace>,
    nodes: HashMap<String, Node>,
    eggs: HashMap<EggKey, EggState>,
    cluster_eggs: BTreeSet<EggKey>,
    /// Whose and for which node every desired EggAssignment is.
    targets: HashMap<ObjectKey, Target>,
    observed: ObservedSet,
    /// Eggs that are there and were never judged, by namespace of their assignments.
    unjudged: BTreeMap<String, BTreeSet<EggKey>>,
    write_errors: HashMap<ObjectKey, String>,
    changes: Changes,
    settled: bool,
}

#[derive(Debug, Default)]
struct Namespace {
    labels: Option<Labels>,
    /// It is being deleted.
    ends: bool,
    pods: BTreeMap<String, Pod>,
    eggs: BTreeSet<EggKey>,
}

impl Index {
    /// What changed since the last time.
    pub fn take_changes(&mut self) -> Changes {
        for egg in std::mem::take(&mut self.changes.sharing) {
            if let Some(state) = self.eggs.get_mut(&egg) {
                state.mark_shares(&mut self.changes);
            }
        }
        std::mem::take(&mut self.changes)
    }

    /// Says that all initial lists are in. Before, nothing may be written: an absent object could simply not
    /// have been listed yet.
    pub fn settle(&mut self) {
        self.settled = true;
        for key in self.eggs.keys().cloned().collect::<Vec<_>>() {
            self.recover(&key);
        }
        for observed in self.observed.values_mut() {
            share_policy(&self.eggs, None, observed);
        }
    }

    /// Marks everything, for one that begins to write.
    pub fn mark_all(&mut self) {
        for (key, target) in &self.targets {
            self.changes.desired(key, Some(&target.egg));
        }
        for observed in self.observed.values() {
            self.changes.desired(&observed.key, observed.egg().as_ref());
        }
        self.changes.status.extend(self.eggs.keys().cloned());
    }

    /// A pod is there or has changed.
    pub fn apply_pod(&mut self, pod: Pod) {
        let key = pod.key();
        let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
        let old = namespace.pods.insert(key.name.clone(), pod.clone());
        if old.as_ref() == Some(&pod) {
            return;
        }
        let changed = old.as_ref().is_some_and(|old| old.assigned != pod.assigned);
        for egg in namespace.eggs.iter().chain(&self.cluster_eggs) {
            let Some(state) = self.eggs.get_mut(egg) else { continue };
            if let Some(old) = old.as_ref().filter(|old| old.node != pod.node) {
                state.place(old, false, false, &mut self.targets, &mut self.changes);
            }
            let selected = state.selects(namespace.labels.as_ref(), &pod);
            state.place(&pod, selected, changed, &mut self.targets, &mut self.changes);
        }
    }

    /// A pod is gone, or counts no longer.
    pub fn remove_pod(&mut self, key: &ObjectKey) {
        let Some(namespace) = self.namespaces.get_mut(&key.namespace) else { return };
        let Some(pod) = namespace.pods.remove(&key.name) else { return };
        for egg in namespace.eggs.iter().chain(&self.cluster_eggs) {
            if let Some(state) = self.eggs.get_mut(egg) {
                state.place(&pod, false, false, &mut self.targets, &mut self.changes);
            }
        }
        self.forget_empty(&key.namespace);
    }

    /// A namespace is there or has other labels.
    pub fn apply_namespace(&mut self, name: &str, labels: Labels) {
        let namespace = self.namespaces.entry(name.to_owned()).or_default();
        if namespace.labels.as_ref() != Some(&labels) {
            namespace.labels = Some(labels);
            self.reselect_namespace(name);
        }
    }

    /// A namespace is gone.
    pub fn remove_namespace(&mut self, name: &str) {
        let Some(namespace) = self.namespaces.get_mut(name) else { return };
        namespace.labels = None;
        self.reselect_namespace(name);
        self.namespace_ends(name, false);
        self.forget_empty(name);
    }

    /// A namespace is being deleted, or is not.
    pub fn namespace_ends(&mut self, name: &str, ends: bool) {
        let Some(namespace) = self.namespaces.get_mut(name) else { return };
        if std::mem::replace(&mut namespace.ends, ends) && !ends {
            // Another of the same name: what was spared is looked at now.
            let eggs = namespace.eggs.iter();
            let cluster_eggs = self.cluster_eggs.iter().filter(|_| name == SYSTEM_NAMESPACE);
            for state in eggs.chain(cluster_eggs).filter_map(|egg| self.eggs.get(egg)) {
                state.mark_nodes(&mut self.changes);
            }
        }
    }

    /// A node is there or has changed.
    pub fn apply_node(&mut self, node: Node) {
        if self.nodes.get(&node.name) == Some(&node) {
            return;
        }
        self.place_node(&node.name, Some(&node));
        let (name, boot_id) = (node.name.clone(), node.boot_id.clone());
        let old = self.nodes.insert(name.clone(), node);
        if old.and_then(|old| old.boot_id) != boot_id {
            self.count_anew(&name);
        }
    }

    /// A node is gone.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(old) = self.nodes.remove(name) {
            self.place_node(name, None);
            if old.boot_id.is_some() {
                self.count_anew(name);
            }
        }
    }

    /// Which boot a node is in decides whether its agent's reports count.
    fn count_anew(&mut self, node: &str) {
        // Before, nothing was counted, and thousands of nodes are listed.
        if !self.settled {
            return;
        }
        for (key, state) in self.eggs.iter_mut().filter(|(_, state)| state.nodes.contains_key(node)) {
            state.forget_tally(node);
            self.changes.status.insert(key.clone());
        }
    }

    fn place_node(&mut self, name: &str, node: Option<&Node>) {
        for egg in &self.cluster_eggs {
            let Some(state) = self.eggs.get_mut(egg) else { continue };
            let host = node.filter(|node| state.selects_node(node)).map(|node| &node.host);
            state.place_node(name, host, &mut self.targets, &mut self.changes);
        }
    }

    /// An Egg or ClusterEgg is there or has changed.
    pub fn apply_egg(&mut self, egg: Egg) {
        let key = egg.key.clone();
        if let Some(state) = self.eggs.get_mut(&key) {
            if is_older(egg.resource_version, state.egg.resource_version) {
                return;
            }
            if state.egg.uid != egg.uid {
                self.remove_egg(&key);
            } else if state.egg.generation == egg.generation && state.egg.spec == egg.spec {
                self.set_status(&key, egg.resource_version, egg.status);
                return;
            }
        }
        self.is_judged(&key);
        let generation = egg.generation;
        let reselect = match self.eggs.get_mut(&key) {
            Some(state) => state.update(egg),
            None => {
                self.eggs.insert(key.clone(), EggState::new(egg));
                match &key.namespace {
                    Some(name) => {
                        self.namespaces.entry(name.clone()).or_default().eggs.insert(key.clone());
                    }
                    None => {
                        self.cluster_eggs.insert(key.clone());
                    }
                }
                true
            }
        };
        tracing::debug!(egg = %key, generation, reselect, "egg changed");
        if reselect {
            self.reselect(&key);
        }
        if self.settled {
            self.recover(&key);
            self.share_policies(&key);
        }
        self.eggs[&key].mark_nodes(&mut self.changes);
        if let Some(state) = self.eggs.get_mut(&key) {
            state.forget_tallies();
        }
        self.changes.status.insert(key);
    }

    /// The API server's answer to the writing of a status. Nothing happens if the Egg is gone by now.
    pub fn status_written(&mut self, key: &EggKey, uid: &str, resource_version: u64, status: EggStatus) {
        if self.eggs.get(key).is_some_and(|state| state.egg.uid == uid) {
            self.set_status(key, resource_version, status);
        }
    }

    /// A list of all Eggs or ClusterEggs begins. It is believed whatever versions it shows: where etcd is restored from
    /// a backup they go back.
    pub fn relist_eggs(&mut self, kind: EggKind) {
        for state in self.eggs.values_mut().filter(|state| state.egg.key.kind == kind) {
            state.egg.resource_version = 0;
        }
    }

    /// An Egg or ClusterEgg is gone: so is all it asked for.
    pub fn remove_egg(&mut self, key: &EggKey) {
        self.is_judged(key);
        let Some(state) = self.eggs.remove(key) else { return };
        state.mark_nodes(&mut self.changes);
        for node in state.nodes.values() {
            self.targets.remove(&node.assignment);
            self.write_errors.remove(&node.assignment);
        }
        for id in self.observed.of_egg(key) {
            self.changes.desired(id, Some(key));
        }
        match &key.namespace {
            Some(name) => {
                if let Some(namespace) = self.namespaces.get_mut(name) {
                    namespace.eggs.remove(key);
                }
                self.forget_empty(name);
            }
            None => {
                self.cluster_eggs.remove(key);
            }
        }
    }

    fn set_status(&mut self, key: &EggKey, resource_version: u64, status: EggStatus) {
        let Some(state) = self.eggs.get_mut(key) else { return };
        if is_older(resource_version, state.egg.resource_version) {
            return;
        }
        state.egg.resource_version = resource_version;
        if state.egg.status != status {
            state.egg.status = status;
            self.changes.status.insert(key.clone());
        }
    }

    fn reselect(&mut self, key: &EggKey) {
        let Some(state) = self.eggs.get_mut(key) else { return };
        let (one, all) = match &key.namespace {
            Some(name) => (self.namespaces.get(name), None),
            None => (None, Some(self.namespaces.values())),
        };
        for namespace in one.into_iter().chain(all.into_iter().flatten()) {
            for pod in namespace.pods.values() {
                let selected = state.selects(namespace.labels.as_ref(), pod);
                state.place(pod, selected, false, &mut self.targets, &mut self.changes);
            }
        }
        if key.namespace.is_none() {
            for node in self.nodes.values() {
                let host = state.selects_node(node).then_some(&node.host);
                state.place_node(&node.name, host, &mut self.targets, &mut self.changes);
            }
        }
    }

    fn reselect_namespace(&mut self, name: &str) {
        let Some(namespace) = self.namespaces.get(name) else { return };
        for egg in &self.cluster_eggs {
            let Some(state) = self.eggs.get_mut(egg) else { continue };
            if !state.reads_namespace_labels() {
                continue;
            }
            for pod in namespace.pods.values() {
                let selected = state.selects(namespace.labels.as_ref(), pod);
                state.place(pod, selected, false, &mut self.targets, &mut self.changes);
            }
        }
    }

    /// Takes up what an earlier operator enforced for an Egg that is not accepted as it is now.
    fn recover(&mut self, key: &EggKey) {
        let Some(state) = self.eggs.get_mut(key) else { return };
        if state.recover(self.observed.of_egg(key).filter_map(|id| self.observed.get(id))) {
            self.reselect(key);
            self.changes.status.insert(key.clone());
        }
    }

    fn forget_empty(&mut self, name: &str) {
        if let Some(namespace) = self.namespaces.get(name)
            && namespace.labels.is_none()
            && namespace.pods.is_empty()
            && namespace.eggs.is_empty()
        {
            self.namespaces.remove(name);
        }
    }
}

/// Resource versions grow; 0 stands for one that is no number.
fn is_older(new: u64, known: u64) -> bool {
    new != 0 && new < known
}
