//! What a pass looks at before it plans: who is new, and which containers there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::Reconciler;
use crate::{
    datapath::{Datapath, EnforcedPod},
    hold::View,
    plan::Operation,
};

impl<D: Datapath> Reconciler<D> {
    /// Which new pods are to be held.
    pub(super) fn decide_holds(&mut self, enforced: &[EnforcedPod]) {
        let datapath = &self.datapath;
        let view = View {
            desired: &self.desired,
            enforced,
            cgroups: &self.cgroups,
            selected: &self.selected,
            failures: &self.failures,
            is_on_host_network: &|cgroup| datapath.is_on_host_network(cgroup),
        };
        let (held, let_go) = self.holds.decide(&view, Instant::now());
        self.held = held;
        for uid in let_go {
            self.metrics.let_go();
            let why = &self.holds.let_go()[&uid];
            let pod = why.pod.as_ref().map(|(namespace, name)| format!("{namespace}/{name}"));
            tracing::warn!(pod, uid, "{}", why.message);
        }
    }

    /// Remembers which of the cluster's Eggs what is in force is of. Of pods that an agent before has left, what is wanted now counts as
    /// that, so that what comes later is known to be new.
    pub(super) fn remember_cluster(&mut self, enforced: &[EnforcedPod], operations: &[Operation]) {
        self.in_force_of_cluster.retain(|uid, _| enforced.iter().any(|pod| pod.uid == *uid));
        if !self.desired.knows_all_pods {
            return;
        }
        let changed: BTreeSet<&str> = operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Enforce { uid, .. } => Some(uid.as_str()),
                _ => None,
            })
            .collect();
        for EnforcedPod { uid, .. } in enforced {
            let Some(pod) = self.desired.pods.get(uid) else { continue };
            let is_as_wanted =
                pod.policy.is_ok() && !changed.contains(uid.as_str()) && !self.is_left_alone(uid);
            if is_as_wanted || !self.in_force_of_cluster.contains_key(uid) {
                self.in_force_of_cluster.insert(uid.clone(), pod.of_cluster.clone());
            }
        }
    }

    /// Sees which containers divided pods have. True if that is news.
    pub(super) fn look_into_pods(&mut self) -> bool {
        let divided: Vec<&str> = self
            .desired
            .pods
            .iter()
            .filter(|(_, pod)| pod.division.is_some())
            .map(|(uid, _)| uid.as_str())
            .collect();
        if divided.is_empty() && self.cgroups.containers.is_empty() {
            return false;
        }
        if let Some(follower) = &mut self.follower {
            // First, so that nothing comes in between.
            let paths = divided.iter().filter_map(|uid| self.cgroups.pods.get(*uid));
            paths.for_each(|cgroup| follower.follow(&cgroup.path));
        }
        // What an agent has found out once is believed: a container can mount what it likes later.
        let mut known = BTreeMap::new();
        for pod in self.datapath.enforced().into_iter().flatten() {
            for (cgroup, container) in pod.containers.into_iter().flatten() {
                known.insert((pod.uid.clone(), cgroup), container.name);
            }
        }
        self.cgroups
            .look_into(divided.into_iter(), |uid, cgroup| known.get(&(uid.to_owned(), cgroup)).cloned())
    }
}
