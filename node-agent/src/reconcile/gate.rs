//! The gate: with `--strict`, nothing leaves a pod that has not been decided about, also where it starts while no agent runs.

use std::collections::BTreeSet;

use super::Reconciler;
use crate::{
    causes::causes,
    cgroup::PodCgroups,
    datapath::{Datapath, DatapathError, EnforcedPod, NODE_UID},
    hold::{HoldSettings, NO_POLICY},
};

impl<D: Datapath> Reconciler<D> {
    /// Before anything is known of pods: an agent that does not need the gate opens what one before it has closed.
    pub(super) fn open_gate(&mut self) {
        if !self.is_strict() {
            let opened = self.datapath.open_gate();
            self.tell_gate(opened);
        }
    }

    /// The cgroups have been read.
    pub(super) fn close_gate(&mut self, cgroups: &PodCgroups) {
        if !self.is_strict() || !cgroups.complete {
            return;
        }
        let running: Vec<u64> = cgroups.pods.values().map(|cgroup| cgroup.id).collect();
        let closed = self.datapath.close_gate(&cgroups.parents, &running);
        self.tell_gate(closed);
        let there: BTreeSet<u64> = running.into_iter().collect();
        self.datapath.retain_admitted(&|id| there.contains(&id));
    }

    /// Who is held or enforced is so by its own programs; whom nothing is for may pass.
    pub(super) fn admit(&mut self, enforced: &[EnforcedPod]) {
        if !self.is_strict() {
            return;
        }
        let is_whole = |pod: &&EnforcedPod| pod.held || pod.policy != NO_POLICY;
        let attached: BTreeSet<u64> = enforced.iter().filter(is_whole).map(|pod| pod.cgroup_id).collect();
        let mut admitted = Ok(());
        for (uid, cgroup) in self.cgroups.pods.iter().filter(|(uid, _)| *uid != NODE_UID) {
            let has_policy = self.desired.pods.get(uid).is_some_and(|pod| pod.in_force_policy().is_some());
            if attached.contains(&cgroup.id) || !(has_policy || self.held.contains_key(uid)) {
                admitted = admitted.and(self.datapath.admit(cgroup.id));
            }
        }
        if admitted.is_err() {
            self.tell_gate(admitted);
        }
    }

    fn is_strict(&self) -> bool {
        self.holds.settings() == HoldSettings::Strict
    }

    /// Once, not every second.
    fn tell_gate(&mut self, done: Result<(), DatapathError>) {
        match done {
            Ok(()) => self.told_gate = None,
            Err(error) => {
                let error = causes(&error);
                if self.told_gate.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "the gate (--strict) is not as it should be, tried again: pods that start while no agent runs may be free, or wait on"
                    );
                }
                self.told_gate = Some(error);
            }
        }
    }
}
