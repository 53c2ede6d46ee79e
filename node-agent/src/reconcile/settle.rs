//! Connections, one pod at a time, after its policy has changed.

use std::time::{Duration, Instant};

use super::Reconciler;
use crate::{causes::causes, datapath::Datapath};

/// When a look that has failed is tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Later {
    pub(super) at: Instant,
    pause: Duration,
}

impl Later {
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(60);

    pub(super) fn after(before: Option<&Self>, now: Instant) -> Self {
        let pause = before.map_or(Self::FIRST, |before| (before.pause * 2).min(Self::MOST));
        Later { at: now + pause, pause }
    }
}

impl<D: Datapath> Reconciler<D> {
    /// A pod whose wanted policy is in force, and whose connections have yet to be looked at.
    pub(super) fn next_unsettled(&self) -> Option<&String> {
        let now = Instant::now();
        let is_ready = |uid: &&String| {
            self.unsettled_until.get(*uid).is_none_or(|later| later.at <= now)
                && self.cgroups.pods.contains_key(*uid)
                && self.desired.pods.get(*uid).is_some_and(|pod| pod.in_force_policy().is_some())
        };
        self.unsettled.iter().find(is_ready)
    }

    pub(super) fn has_unsettled(&self) -> bool {
        self.next_unsettled().is_some()
    }

    /// Has a pod's connections looked at, soon, whatever has failed before.
    pub(super) fn unsettle(&mut self, uid: &str) {
        self.unsettled_until.remove(uid);
        self.unsettled.insert(uid.to_owned());
    }

    /// Looks at the connections of one pod.
    pub fn settle_one(&mut self) {
        let Some(uid) = self.next_unsettled().cloned() else { return };
        self.unsettled.remove(&uid);
        let (Some(cgroup), Some(pod)) = (self.cgroups.pods.get(&uid), self.desired.pods.get(&uid)) else {
            return;
        };
        let settled = match (&pod.division, pod.in_force_policy()) {
            (Some(division), _) => {
                let containers = self.cgroups.containers_of(&uid).values().filter_map(|container| {
                    let policy = division.policy_of(container.name.as_ref()?)?.as_ref();
                    Some((container.path.as_path(), policy))
                });
                self.datapath.settle_containers(&uid, &cgroup.path, &containers.collect::<Vec<_>>())
            }
            (None, Some(policy)) => self.datapath.settle(&uid, &cgroup.path, policy),
            (None, None) => return,
        };
        match settled {
            Ok(settled) => {
                self.unsettled_until.remove(&uid);
                self.tell_settled(&uid, settled);
            }
            Err(error) => {
                self.metrics.failed();
                let later = Later::after(self.unsettled_until.get(&uid), Instant::now());
                self.unsettled_until.insert(uid.clone(), later);
                self.unsettled.insert(uid.clone());
                let error = causes(&error);
                if std::mem::replace(&mut self.told_unsettled, true) {
                    tracing::debug!(uid, error, "connections of the pod could not be looked at");
                } else {
                    tracing::warn!(
                        uid,
                        error,
                        "connections of a pod could not be looked at: those that are not allowed any more stop, but nobody is told; tried again, and said once"
                    );
                }
            }
        }
    }
}
