//! What people are told, once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Reconciler;
use crate::{
    assignment::{egg_name, subject_name},
    causes::causes,
    cgroup::CgroupEvent,
    datapath::{ContainerPolicy, Datapath, DatapathError, Settled, ShapedCounts},
    desired::Failure,
    inventory::REPLACED_WITHIN,
    limits::Limit,
    shaping_metrics::NamedCounts,
};

impl<D: Datapath> Reconciler<D> {
    /// Once for each, not with every event of the watch.
    pub(super) fn tell_unreadable(&mut self) {
        let unreadable = self.inventory.entries().filter_map(|entry| {
            let message = &entry.object.content.as_ref().err()?.message;
            Some((entry.object.key.clone(), message.clone()))
        });
        let unreadable: BTreeMap<_, _> = unreadable.collect();
        for (key, message) in &unreadable {
            if self.told_unreadable.get(key) != Some(message) {
                tracing::error!("{message}; what is enforced stays, and all other assignments are followed");
            }
        }
        self.told_unreadable = unreadable;
    }

    /// That a pod is under its other Eggs alone, because nothing has come in the place of one. Where it has no other, what is in force
    /// stays.
    pub(super) fn tell_unreplaced(&self, uid: &str, left: &str) {
        if !self.inventory.is_assigned(uid) {
            return;
        }
        let (pod, _) = self.name(uid);
        let mut eggs = self.selected.eggs_of(uid);
        eggs.retain(|egg| !self.inventory.is_assigned_by(egg, uid));
        tracing::warn!(
            pod,
            uid,
            left,
            eggs = eggs.join(", "),
            "pod has left one Egg, and the operator has not assigned it to these for {} s, which select it now: until then its other Eggs count alone (does l7egg-operator run?)",
            REPLACED_WITHIN.as_secs()
        );
    }

    pub(super) fn tell_settled(&mut self, uid: &str, Settled { reset, unread, lost }: Settled) {
        self.metrics.reset(reset + unread);
        let (pod, eggs) = self.name(uid);
        if reset > 0 {
            tracing::info!(pod, uid, eggs, reset, "connections that are not allowed any more were reset");
        }
        if unread > 0 {
            tracing::info!(
                pod,
                uid,
                eggs,
                unread,
                "connections to the pod's resolvers that were open before were reset: their answers could not be read"
            );
        }
        if lost > 0 {
            self.limits.reach_of(uid, Limit::Inherited, Instant::now());
            tracing::warn!(
                pod,
                uid,
                lost,
                "map INHERITED is full: connections that came in before the pod's first Egg are judged as the pod's own"
            );
        }
    }

    /// As a fact: nothing can be done about it.
    pub(super) fn tell_host_network(&mut self, uid: &str) {
        if self.desired.pods.contains_key(uid) && self.told_uncovered.insert(uid.to_owned()) {
            let (pod, eggs) = self.name(uid);
            tracing::info!(
                pod,
                uid,
                eggs,
                "pod is in the node's network: what its sockets send is judged; frames that it writes straight to an interface (CAP_NET_RAW) are the node's"
            );
        }
    }

    pub(super) fn tell_divided(&self, uid: &str, containers: &[ContainerPolicy]) {
        let (pod, eggs) = self.name(uid);
        let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
        tracing::info!(
            pod,
            uid,
            eggs,
            containers = names.join(", "),
            "policies of the pod's containers are in force"
        );
    }

    pub(super) fn tell_enforced(&mut self, uid: &str, policy: &str, first: bool) {
        let (pod, eggs) = self.name(uid);
        if !first {
            tracing::info!(pod, uid, eggs, policy, "policy of the pod changed");
            return;
        }
        let (waited, uncovered) = self.timeline.enforced(uid);
        if let Some(waited) = waited {
            self.metrics.waited(waited);
        }
        let micros = |time: Option<Duration>| time.map(|time| time.as_micros());
        let (after_both, after_cgroup) = (micros(waited), micros(uncovered));
        tracing::info!(
            pod,
            uid,
            eggs,
            policy,
            after_both,
            after_cgroup,
            "pod is enforced (times in \u{b5}s)"
        );
    }

    pub(super) fn fail(&mut self, uid: &str, error: &DatapathError) {
        if let DatapathError::CgroupGone { path, .. } = error {
            // The watch says so soon; until then there is nothing to enforce.
            tracing::debug!(uid, "pod ended before it was enforced");
            self.cgroups.apply(CgroupEvent::Vanished { path: path.clone() });
            return;
        }
        let failure = Failure { reason: error.reason(), message: causes(error) };
        if self.failures.get(uid) != Some(&failure) {
            let (pod, eggs) = self.name(uid);
            tracing::error!(
                pod,
                uid,
                eggs,
                error = failure.message,
                "pod cannot be brought to what its Eggs ask; tried again every second"
            );
            self.failures.insert(uid.to_owned(), failure);
        }
        self.metrics.failed();
    }

    pub(super) fn fail_shaping(&mut self, uid: &str, error: &DatapathError) {
        let failure = Failure { reason: error.reason(), message: causes(error) };
        if error.is_not_yet() {
            tracing::debug!(uid, "{}", failure.message);
        } else {
            self.metrics.failed();
            if self.unshaped.get(uid) != Some(&failure) {
                let (pod, eggs) = self.name(uid);
                tracing::error!(
                    pod,
                    uid,
                    eggs,
                    error = failure.message,
                    "bandwidth limit cannot be applied; tried again every second"
                );
            }
        }
        self.unshaped.insert(uid.to_owned(), failure);
    }

    /// Counts by names that people know; those of pods that no Egg selects any more are left out.
    pub(super) fn named(&self, counts: ShapedCounts) -> NamedCounts {
        let pods = counts.pods.into_iter().filter_map(|(uid, counts)| {
            let (pod, _) = self.name(&uid);
            (!pod.is_empty()).then_some((pod, counts))
        });
        let caps = counts.caps.into_iter().filter_map(|cap| {
            let egg = self.inventory.entries().filter_map(|entry| entry.good.as_ref()).find_map(|good| {
                let uid = &good.egg.uid;
                let of_namespace = || cap.name.strip_prefix("namespace/")?.strip_suffix(uid.as_str());
                if cap.name.strip_prefix("egg/") == Some(uid) {
                    Some(egg_name(&good.egg))
                } else {
                    let namespace = of_namespace()?.trim_end_matches('/');
                    Some(format!("{} in namespace {namespace}", egg_name(&good.egg)))
                }
            });
            Some((egg?, cap.counts))
        });
        NamedCounts { pods: pods.collect(), caps: caps.collect() }
    }

    pub(super) fn name(&self, uid: &str) -> (String, String) {
        if let Some(pod) = self.desired.pods.get(uid) {
            return (subject_name(&pod.namespace, &pod.name), pod.eggs.join(", "));
        }
        let annotated = self.desired.annotated.as_ref().and_then(|annotated| annotated.get(uid));
        let name = annotated.map(|pod| subject_name(&pod.namespace, &pod.name));
        (name.unwrap_or_default(), String::new())
    }
}
