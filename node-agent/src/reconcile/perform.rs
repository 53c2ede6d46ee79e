//! What a plan asks for, done.

use std::time::{Duration, Instant};

use super::{Reconciler, pace::Attempt, room::policies_of};
use crate::{
    causes::causes,
    cgroup::{CgroupEvent, PodCgroup, has_children},
    datapath::{Cover, Datapath, DatapathError, NETWORK_NOT_READY},
    limits::Limit,
    plan::{Operation, ReleaseReason},
    state::short,
};

/// So long a pass enforces what is not new; then the next one goes on, and has seen who came meanwhile. A node full of pods takes
/// seconds when it gets its first Eggs, or after an upgrade with other maps.
const IN_A_PASS: Duration = Duration::from_millis(100);
/// So many pods are let go in a pass: the kernel takes tens of milliseconds for each, to wait for packets that are on their way.
const RELEASES: usize = 16;

impl<D: Datapath> Reconciler<D> {
    /// As many of them as a pass is for: what is let go of is known before the first is done. Those that have failed are no reason for
    /// another pass.
    pub(super) fn within_reason(&mut self, mut operations: Vec<Operation>) -> Vec<Operation> {
        let is_release = |operation: &Operation| matches!(operation, Operation::Release { .. });
        operations.sort_by_key(|operation| is_release(operation) && self.has_failed(operation));
        let mut releases = 0;
        let mut is_unfinished = false;
        operations.retain(|operation| {
            releases += usize::from(is_release(operation));
            let is_done = releases <= RELEASES || !is_release(operation);
            is_unfinished |= !is_done && !self.has_failed(operation);
            is_done
        });
        self.is_unfinished |= is_unfinished;
        operations
    }

    /// Does all of them that are for new pods, and others as far as a pass has time for them. None of them waits for those that have
    /// failed, and new pods do not wait for bandwidth limits.
    pub(super) fn perform_all(&mut self, operations: &[Operation]) {
        let (again, others): (Vec<_>, Vec<_>) = operations.iter().partition(|operation| match operation {
            Operation::Shape { uid, .. } => self.shaping.has_failed(uid),
            _ => self.has_failed(operation),
        });
        let begin = Instant::now();
        let mut has_changed = false;
        for operation in others.into_iter().chain(again) {
            match operation {
                Operation::Enforce { uid, policy, .. }
                    if self.enforcing.rests(uid, &policy.digest, Instant::now()) => {}
                Operation::Enforce { uid, .. }
                    if has_changed && begin.elapsed() >= IN_A_PASS && !self.is_new(uid) =>
                {
                    self.is_unfinished |= !self.has_failed(operation);
                }
                Operation::Enforce { uid, policy, .. } => {
                    let start = Instant::now();
                    self.perform(operation);
                    has_changed |= !self.is_new(uid);
                    if self.failures.contains_key(uid) {
                        self.enforcing.failed(uid, policy.digest, start.elapsed(), Instant::now());
                    }
                }
                Operation::Shape { uid, .. } if !self.shaping.may(uid, Instant::now()) => {}
                Operation::Shape { uid, .. } => {
                    let start = Instant::now();
                    self.perform(operation);
                    let attempt = match self.unshaped.get(uid) {
                        None => Attempt::Done,
                        Some(failure) if failure.reason == NETWORK_NOT_READY => Attempt::NotYet,
                        Some(_) => Attempt::Failed,
                    };
                    self.shaping.took(uid, start.elapsed(), attempt, Instant::now());
                }
                _ => self.perform(operation),
            }
        }
    }

    fn has_failed(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Enforce { uid, .. } | Operation::Release { uid, .. } => {
                self.failures.contains_key(uid)
            }
            _ => false,
        }
    }

    fn is_new(&self, uid: &str) -> bool {
        self.held.contains_key(uid) || self.holds.is_new(uid)
    }

    fn perform(&mut self, operation: &Operation) {
        let start = Instant::now();
        match operation {
            Operation::Hold { uid, cgroup } => self.hold(uid, cgroup),
            Operation::Enforce { uid, cgroup, policy, containers, first } => {
                let policies = policies_of(policy, containers.as_deref());
                let done = self.check_room(uid, &policies).and_then(|()| match containers {
                    None => self.datapath.enforce(uid, &cgroup.path, policy),
                    Some(containers) => self.datapath.divide(uid, &cgroup.path, policy, containers),
                });
                match done {
                    Ok(()) => {
                        let namespace = self.room_of(uid);
                        self.room.take(uid, &namespace, policies.into_iter());
                        self.failures.remove(uid);
                        self.older.remove(uid);
                        let of_cluster = self.desired.pods.get(uid).map(|pod| pod.of_cluster.clone());
                        self.in_force_of_cluster.extend(of_cluster.map(|it| (uid.clone(), it)));
                        self.metrics.enforced(start.elapsed());
                        self.unsettle(uid);
                        if *first {
                            self.wiring.begin(uid, Instant::now());
                        }
                        match containers {
                            Some(containers) if !first => self.tell_divided(uid, containers),
                            _ => self.tell_enforced(uid, &short(&policy.digest), *first),
                        }
                    }
                    Err(error) => {
                        // Denied is what is new.
                        let is_free = self.holds.is_new(uid) && !self.held.contains_key(uid);
                        if *first && is_free && !policy.enforcement.is_nothing() {
                            self.hold(uid, cgroup);
                        }
                        self.fail(uid, &error);
                    }
                }
            }
            Operation::Shape { uid, cgroup, caps } => match self.datapath.shape(uid, &cgroup.path, caps) {
                Ok(()) => {
                    self.unshaped.remove(uid);
                    let (pod, _) = self.name(uid);
                    let strictest = self.desired.limits(uid).and_then(|limits| limits.strictest.as_ref());
                    tracing::info!(
                        pod,
                        uid,
                        limit = strictest.map(tracing::field::display),
                        "bandwidth limit of the pod set"
                    );
                }
                Err(error) => self.fail_shaping(uid, &error),
            },
            Operation::Unshape { uid, cgroup } => {
                match self.datapath.unshape(uid, cgroup.as_ref().map(|cgroup| cgroup.path.as_path())) {
                    Ok(()) => {
                        self.unshaped.remove(uid);
                        tracing::debug!(uid, "bandwidth limit of the pod taken off");
                    }
                    Err(error) => self.fail_shaping(uid, &error),
                }
            }
            Operation::Release { uid, why } => match self.datapath.release(uid) {
                Ok(()) => {
                    self.failures.remove(uid);
                    match why {
                        ReleaseReason::NoEgg => {
                            tracing::info!(uid, "no Egg selects the pod any more: it is free")
                        }
                        ReleaseReason::NotHeld => tracing::info!(uid, "pod is held no longer"),
                        ReleaseReason::Ended => tracing::debug!(uid, "pod ended"),
                    }
                }
                Err(error) => self.fail(uid, &error),
            },
        }
    }

    pub(super) fn hold(&mut self, uid: &str, cgroup: &PodCgroup) {
        match self.datapath.hold(uid, &cgroup.path) {
            Ok(()) => {
                self.wiring.begin(uid, Instant::now());
                let after_cgroup = self.timeline.since_cgroup(uid).map(|time| time.as_micros());
                self.metrics.held();
                let why = self.held.get(uid).map(|pod| pod.message.as_str());
                tracing::debug!(uid, after_cgroup, why, "pod is held (time in \u{b5}s)");
            }
            Err(DatapathError::CgroupGone { path, .. }) => {
                self.cgroups.apply(CgroupEvent::Vanished { path });
            }
            Err(error) => {
                self.metrics.failed();
                if self.told_unheld.insert(uid.to_owned()) {
                    tracing::error!(
                        uid,
                        error = causes(&error),
                        "pod cannot be held: it is free until its policy is in force; tried again every second"
                    );
                }
            }
        }
    }

    /// What the cgroup's programs do not see needs the pod's interfaces, which may come later.
    pub(super) fn cover(&mut self, uid: &str) {
        let Some(cgroup) = self.cgroups.pods.get(uid) else { return };
        let cover = self.datapath.cover(uid, &cgroup.path, &self.told_network(uid));
        // What has failed may go well in a moment.
        if self.datapath.has_lost_network(uid) {
            self.wiring.lose(uid, Instant::now(), || has_children(&cgroup.path));
        } else if cover.as_ref().is_ok_and(|cover| *cover != Cover::NotYet)
            && let Some(since) = self.wiring.end(uid)
        {
            let after = since.elapsed().as_micros();
            tracing::debug!(uid, after, "the pod's network is found (time in \u{b5}s)");
        }
        if let Ok(cover) = &cover {
            self.note_network(uid, *cover != Cover::NotYet, Instant::now());
        }
        let trouble = match cover {
            Ok(Cover::NotYet | Cover::Whole) => return,
            Ok(Cover::Host) => return self.tell_host_network(uid),
            Ok(Cover::Part { uncovered }) => {
                format!("no other end on the host: {}", uncovered.join(", "))
            }
            Err(error) => causes(&error),
        };
        // Once it can be named: when the agent starts, pods are known before their assignments.
        if self.desired.pods.contains_key(uid) && self.told_uncovered.insert(uid.to_owned()) {
            let (pod, eggs) = self.name(uid);
            tracing::warn!(
                pod,
                uid,
                eggs,
                trouble,
                "frames that the pod writes straight to its interface (CAP_NET_RAW) are not seen"
            );
        }
    }

    pub(super) fn collect(&mut self) {
        match self.datapath.collect() {
            Ok(turned_away) => {
                let now = Instant::now();
                turned_away.iter().for_each(|uid| self.limits.reach_of(uid, Limit::Share, now));
            }
            Err(error) => tracing::warn!(
                error = causes(&error),
                "what nothing uses any more stays in the kernel's maps for now"
            ),
        }
    }
}
