//! How long pods waited for their policy.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// When the two things that a pod's enforcement needs became known.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    cgroups: BTreeMap<String, Instant>,
    assigned: BTreeMap<String, Instant>,
}

impl Timeline {
    /// The pod's cgroup appeared.
    pub(super) fn cgroup(&mut self, uid: &str) {
        self.cgroups.insert(uid.to_owned(), Instant::now());
    }

    /// An assignment names the pod.
    pub(super) fn assigned(&mut self, uid: &str) {
        self.assigned.entry(uid.to_owned()).or_insert_with(Instant::now);
    }

    /// For how long the pod's cgroup has been there, if it came while the agent watched.
    pub(super) fn since_cgroup(&self, uid: &str) -> Option<Duration> {
        self.cgroups.get(uid).map(Instant::elapsed)
    }

    /// The pod is enforced: for how long both were known before, and for how long the cgroup was. `None` where
    /// the agent came later than they did.
    pub(super) fn enforced(&mut self, uid: &str) -> (Option<Duration>, Option<Duration>) {
        let (cgroup, assigned) = (self.cgroups.remove(uid), self.assigned.remove(uid));
        (cgroup.max(assigned).map(|both| both.elapsed()), cgroup.map(|cgroup| cgroup.elapsed()))
    }

    /// Forgets the pods that are not `wanted` any more.
    pub(super) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.cgroups.retain(|uid, _| wanted(uid));
        self.assigned.retain(|uid, _| wanted(uid));
    }
}
