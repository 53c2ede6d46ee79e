//! What is known of pods' networks before they are found, and those that are not found.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{Reconciler, glance::NEW_FOR};
use crate::{
    datapath::{Datapath, ToldNetwork},
    netns::SpecNetwork,
    report::not_found,
};

/// Pods whose networks are not found.
#[derive(Debug, Default)]
pub(super) struct Unfound {
    /// Since when they have been looked for in vain, by uid.
    pub(super) since: BTreeMap<String, Instant>,
    /// Those that are known to have one, and have been told for that.
    pub(super) told: BTreeSet<String>,
}

impl Unfound {
    /// Forgets the others.
    pub(super) fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.since.retain(|uid, _| is_known(uid));
        self.told.retain(|uid| is_known(uid));
    }
}

impl<D: Datapath> Reconciler<D> {
    /// What is told of a pod's network, by the API server itself or by an assignment.
    pub(super) fn told_network(&self, uid: &str) -> ToldNetwork {
        let pod = self.selected.pod(uid);
        let is_host = pod
            .map(|pod| pod.host_network)
            .or_else(|| self.desired.pods.get(uid).map(|pod| pod.host_network));
        let spec = match is_host {
            Some(true) => SpecNetwork::Host,
            Some(false) => SpecNetwork::Own,
            None => SpecNetwork::Unknown,
        };
        let addresses =
            self.is_told_of_pods.then(|| pod.map(|pod| pod.addresses.clone()).unwrap_or_default());
        ToldNetwork { spec, addresses }
    }

    /// A pod's network was looked for. One that has addresses has a network: where it is not found for long, that is told, once.
    pub(super) fn note_network(&mut self, uid: &str, is_found: bool, now: Instant) {
        if is_found {
            self.unfound.since.remove(uid);
            if self.unfound.told.remove(uid) {
                let (pod, _) = self.name(uid);
                tracing::info!(pod, uid, "the pod's network is found now");
            }
            return;
        }
        let since = *self.unfound.since.entry(uid.to_owned()).or_insert(now);
        let has_one = self.selected.pod(uid).is_some_and(|pod| {
            !(pod.addresses.is_empty() || pod.host_network || pod.finished || pod.is_ending)
        });
        // Of one whose processes have all ended, an agent before may have found it.
        if !has_one || self.datapath.knows_network(uid) {
            self.unfound.told.remove(uid);
            return;
        }
        if let Some(desired) = self.desired.pods.get(uid)
            && now.saturating_duration_since(since) >= NEW_FOR
            && self.unfound.told.insert(uid.to_owned())
        {
            let (pod, eggs) = self.name(uid);
            tracing::warn!(pod, uid, eggs, "{}", not_found(desired).message);
        }
    }
}
