//! Eggs × pods × namespaces × EggAssignments: what is, what is to be, and where the two may differ now.
//!
//! Synchronous and without a client: it is told what the API server has, marks what a piece of news can have
//! changed, and answers what is desired. A pod's news cost the Eggs of its namespace and the ClusterEggs;
//! an Egg's news cost the pods of its namespaces.

mod changes;
mod egg_state;
mod input;
mod key;
mod observed;
mod selection;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use changes::Changes;
pub use input::{Accepted, Assignment, Egg, Labels, Observed, Pod, Rejection};
pub use key::{EggKey, ObjectKey};
pub use selection::{Namespaces, Selection};
pub use tally::{MAX_TROUBLES, Tally, Trouble};

use egg_state::{EggState, Target};
use l7egg_crds::EggStatus;
use observed::ObservedSet;

/// All that the operator knows.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: HashMap<String, Namespace>,
    eggs: HashMap<EggKey, EggState>,
    cluster_eggs: BTreeSet<EggKey>,
    /// Whose and for which node every desired EggAssignment is.
    targets: HashMap<ObjectKey, Target>,
    observed: ObservedSet,
    write_errors: HashMap<ObjectKey, String>,
    changes: Changes,
    settled: bool,
}

#[derive(Debug, Default)]
struct Namespace {
    labels: Option<Labels>,
    pods: BTreeMap<String, Pod>,
    eggs: BTreeSet<EggKey>,
}

/// What an Egg's status is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary<'a> {
    /// The Egg as it is.
    pub egg: &'a Egg,
    /// Generation that is enforced: an older one where the present one was not accepted.
    pub in_force: Option<i64>,
    /// Its pods.
    pub tally: Tally,
}

impl Index {
    /// Marks what changed since the last time, and forgets it.
    pub fn take_changes(&mut self) -> Changes {
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
            share_policy(&self.eggs, observed);
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

    /// What this EggAssignment is to be; nothing if it is not to be.
    pub fn desired(&self, key: &ObjectKey) -> Option<Assignment> {
        let target = self.targets.get(key)?;
        self.eggs.get(&target.egg)?.desired(&target.node, |pod| self.pod(pod))
    }

    /// This EggAssignment as the API server has it.
    pub fn observed(&self, key: &ObjectKey) -> Option<&Observed> {
        self.observed.get(key)
    }

    /// The Egg of that name.
    pub fn egg(&self, key: &EggKey) -> Option<&Egg> {
        Some(&self.eggs.get(key)?.egg)
    }

    /// What the status of this Egg is made of; nothing if there is no such Egg.
    pub fn summary(&mut self, key: &EggKey) -> Option<Summary<'_>> {
        let stale = self.eggs.get(key)?.stale_nodes();
        for node in stale {
            let state = &self.eggs[key];
            let tally = state.desired(&node, |pod| self.pod(pod)).map(|desired| {
                let id = &state.nodes[&node].assignment;
                let error = self.write_errors.get(id).map(String::as_str);
                Tally::of_node(&desired, self.observed.get(id), error)
            });
            // Nothing in force: the pods are selected, and wait.
            let selected = state.nodes[&node].pods.len();
            let tally = tally.unwrap_or(Tally { selected, ..Tally::default() });
            if let Some(node) = self.eggs.get_mut(key).and_then(|state| state.nodes.get_mut(&node)) {
                node.tally = Some(tally);
            }
        }
        let state = self.eggs.get(key)?;
        Some(Summary { egg: &state.egg, in_force: state.in_force_generation(), tally: state.tally() })
    }

    /// Number of Eggs and ClusterEggs, of those not accepted, of pods and of EggAssignments.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            eggs: self.eggs.len(),
            rejected: self.eggs.values().filter(|state| state.egg.spec.is_err()).count(),
            pods: self.namespaces.values().map(|namespace| namespace.pods.len()).sum(),
            assignments: self.observed.len(),
        }
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
        self.forget_empty(name);
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

    /// An Egg or ClusterEgg is gone: so is all it asked for.
    pub fn remove_egg(&mut self, key: &EggKey) {
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

    /// An EggAssignment is there or has changed.
    pub fn apply_observed(&mut self, observed: Observed) {
        self.observed.seen(observed.resource_version);
        self.observe(observed);
    }

    /// The API server's answer to the writing of an EggAssignment.
    pub fn assignment_written(&mut self, observed: Observed) {
        // The watch is further than this answer and does not have the object: it has been deleted since.
        if self.observed.get(&observed.key).is_some() || !self.observed.is_past(observed.resource_version) {
            self.observe(observed);
        }
    }

    /// An EggAssignment is gone.
    pub fn remove_observed(&mut self, key: &ObjectKey) {
        if let Some(old) = self.observed.remove(key) {
            self.mark_observed(key, old.egg());
        }
    }

    /// Why an EggAssignment could not be written the last time, or that it could be.
    pub fn set_write_error(&mut self, key: &ObjectKey, error: Option<String>) {
        let old = match error.clone() {
            Some(error) if self.targets.contains_key(key) => self.write_errors.insert(key.clone(), error),
            _ => self.write_errors.remove(key),
        };
        if old != error {
            self.stale_tally(key);
        }
    }

    /// All pods, namespaces, Eggs or EggAssignments, to find those that a new list no longer has.
    pub fn pod_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.namespaces.iter().flat_map(|(namespace, content)| {
            content.pods.keys().map(|name| ObjectKey::new(namespace.as_str(), name.as_str()))
        })
    }

    /// All namespaces that exist.
    pub fn namespace_names(&self) -> impl Iterator<Item = String> {
        self.namespaces.iter().filter(|(_, content)| content.labels.is_some()).map(|(name, _)| name.clone())
    }

    /// All Eggs and ClusterEggs.
    pub fn egg_keys(&self) -> impl Iterator<Item = EggKey> {
        self.eggs.keys().cloned()
    }

    /// All EggAssignments that exist.
    pub fn observed_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.observed.values().map(|observed| observed.key.clone())
    }

    fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.namespaces.get(&key.namespace)?.pods.get(&key.name)
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

    fn observe(&mut self, mut observed: Observed) {
        let key = observed.key.clone();
        if let Some(known) = self.observed.get(&key)
            && is_older(observed.resource_version, known.resource_version)
        {
            return;
        }
        share_policy(&self.eggs, &mut observed);
        let egg = observed.egg();
        if self.observed.insert(observed) {
            self.mark_observed(&key, egg);
        }
    }

    fn mark_observed(&mut self, key: &ObjectKey, egg: Option<EggKey>) {
        let egg = self.targets.get(key).map(|target| target.egg.clone()).or(egg);
        self.changes.observed(key, egg.as_ref());
        self.stale_tally(key);
    }

    fn stale_tally(&mut self, key: &ObjectKey) {
        if let Some(target) = self.targets.get(key)
            && let Some(state) = self.eggs.get_mut(&target.egg)
        {
            state.forget_tally(&target.node);
            self.changes.status.insert(target.egg.clone());
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

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Eggs and ClusterEggs.
    pub eggs: usize,
    /// Of these, not accepted.
    pub rejected: usize,
    /// Pods that are bound and not finished.
    pub pods: usize,
    /// EggAssignments that exist.
    pub assignments: usize,
}

/// Every node's assignment of an Egg carries the same policy: it is kept once.
fn share_policy(eggs: &HashMap<EggKey, EggState>, observed: &mut Observed) {
    let Some(key) = observed.egg() else { return };
    let Some(policy) = eggs.get(&key).and_then(EggState::policy) else { return };
    if let Some(assignment) = &mut observed.assignment
        && assignment.policy == *policy
    {
        assignment.policy = policy.clone();
    }
}

/// Resource versions grow; 0 stands for one that is no number.
fn is_older(new: u64, known: u64) -> bool {
    new != 0 && new < known
}
