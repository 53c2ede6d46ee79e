//! What the index can be asked.

use super::{Assignment, Egg, EggKey, Index, ObjectKey, Observed, Pod, Tally};

/// What an Egg's status is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary<'a> {
    /// The Egg as it is.
    pub egg: &'a Egg,
    /// Generation that is enforced: an older one where the present one was not accepted.
    pub in_force: Option<i64>,
    /// It is for nodes.
    pub is_for_nodes: bool,
    /// Its pods, or nodes.
    pub tally: Tally,
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

impl Index {
    /// What this EggAssignment is to be; nothing if it is not to be.
    pub fn desired(&self, key: &ObjectKey) -> Option<Assignment> {
        let target = self.targets.get(key)?;
        self.eggs.get(&target.egg)?.desired(&target.node, |pod| self.pod(pod))
    }

    /// This EggAssignment as the API server has it.
    pub fn observed(&self, key: &ObjectKey) -> Option<&Observed> {
        self.observed.get(key)
    }

    /// Whether the API server would refuse this EggAssignment if it does not exist: its namespace is being deleted.
    pub fn is_too_late(&self, key: &ObjectKey) -> bool {
        self.namespaces.get(&key.namespace).is_some_and(|namespace| namespace.ends)
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
                let boot_id = self.nodes.get(&node).and_then(|node| node.boot_id.as_deref());
                Tally::of_node(&desired, self.observed.get(id), boot_id, error)
            });
            // Nothing in force: what is selected waits.
            let selected = state.nodes[&node].pods.len() + usize::from(state.nodes[&node].host.is_some());
            let tally = tally.unwrap_or(Tally { selected, ..Tally::default() });
            if let Some(node) = self.eggs.get_mut(key).and_then(|state| state.nodes.get_mut(&node)) {
                node.tally = Some(tally);
            }
        }
        let state = self.eggs.get(key)?;
        Some(Summary {
            egg: &state.egg,
            in_force: state.in_force_generation(),
            is_for_nodes: state.is_for_nodes(),
            tally: state.tally(),
        })
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

    /// All nodes.
    pub fn node_names(&self) -> impl Iterator<Item = String> {
        self.nodes.keys().cloned()
    }

    /// All Eggs and ClusterEggs, also those that were never judged.
    pub fn egg_keys(&self) -> impl Iterator<Item = EggKey> {
        self.eggs.keys().chain(self.unjudged.values().flatten()).cloned()
    }

    /// All EggAssignments that exist.
    pub fn observed_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.observed.values().map(|observed| observed.key.clone())
    }

    pub(super) fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.namespaces.get(&key.namespace)?.pods.get(&key.name)
    }
}
