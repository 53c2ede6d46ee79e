//! What is known of pods' networks before they are found.

use super::Reconciler;
use crate::datapath::{Datapath, ToldNetwork};
use crate::netns::SpecNetwork;

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
}
