//! Whose policies fill the maps.

use l7egg_crds::SYSTEM_NAMESPACE;
use l7egg_policy::CompiledPolicy;

use super::Reconciler;
use crate::{
    datapath::{ContainerPolicy, Datapath, DatapathError, EnforcedPod, Wanted},
    desired::DesiredPod,
};

/// The policies that an operation brings into force.
pub(super) fn policies_of<'a>(
    policy: &'a CompiledPolicy,
    containers: Option<&'a [ContainerPolicy]>,
) -> Vec<&'a CompiledPolicy> {
    let of_containers =
        containers.unwrap_or_default().iter().filter_map(|container| match &container.wanted {
            Wanted::Policy(policy) => Some(policy.as_ref()),
            Wanted::Free | Wanted::AsBefore => None,
        });
    std::iter::once(policy).chain(of_containers).collect()
}

impl<D: Datapath> Reconciler<D> {
    /// What is in force, as far as it is known what that says: an agent before this one may have brought it there.
    pub(super) fn count_room(&mut self, enforced: &[EnforcedPod]) {
        self.room.retain(|uid| enforced.iter().any(|pod| pod.uid == uid));
        for now in enforced {
            let Some(pod) = self.desired.pods.get(&now.uid) else { continue };
            let Some(policy) = pod.in_force_policy().filter(|policy| policy.digest == now.policy) else {
                continue;
            };
            let of_containers = pod.division.iter().flat_map(|division| division.policies());
            let all = std::iter::once(policy).chain(of_containers).map(AsRef::as_ref);
            self.room.take(&now.uid, room_of(pod), all);
        }
    }

    /// Whether there is room for what is to come into force for a pod. What the cluster's Eggs say comes into force whoever fills the
    /// maps, as long as there is any.
    pub(super) fn check_room(&self, uid: &str, policies: &[&CompiledPolicy]) -> Result<(), DatapathError> {
        let is_due = |pod: &DesiredPod| match self.in_force_of_cluster.get(uid) {
            Some(in_force) => *in_force != pod.of_cluster,
            // One that is new is held.
            None => !pod.of_cluster.is_empty() && !self.holds.is_new(uid),
        };
        match self.desired.pods.get(uid) {
            Some(pod) if !is_due(pod) => self.room.check(room_of(pod), policies.iter().copied()),
            _ => Ok(()),
        }
    }

    pub(super) fn room_of(&self, uid: &str) -> String {
        self.desired.pods.get(uid).map(|pod| room_of(pod).to_owned()).unwrap_or_default()
    }
}

/// In which namespace's room a pod's policies are: in none's where the cluster's Eggs alone are for it, and its author cannot make many
/// of one policy by what the pod's DNS is.
fn room_of(pod: &DesiredPod) -> &str {
    let is_clusters = pod.assignments.iter().all(|key| key.namespace == SYSTEM_NAMESPACE);
    if is_clusters && !pod.has_own_dns { "" } else { &pod.namespace }
}
