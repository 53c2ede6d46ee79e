//! Whose connections are looked at after a change of policy.

use std::path::Path;

use l7egg_ebpf_common::abi::{CLASSIFIED, SOCKET_BALANCER, SubjectState};
use l7egg_policy::CompiledPolicy;

use super::Kernel;
use super::error::kernel;
use super::settle::{self, Cgroups, Subject};
use crate::datapath::{DatapathError, NODE_UID, Settled};
use crate::netns::SpecNetwork;

/// A subject, where its sockets are, and what should be in force for it.
type Changed<'a> = (u32, Cgroups<'a>, &'a CompiledPolicy);

impl Kernel {
    pub(super) fn settle_whole(
        &mut self,
        uid: &str,
        cgroup: &Path,
        policy: &CompiledPolicy,
    ) -> Result<Settled, DatapathError> {
        let Some(pod) = self.pods.get(uid) else { return Ok(Settled::default()) };
        let subject = pod.subject;
        let pods = self.pods_cgroups.clone();
        let of = match &pods {
            _ if uid != NODE_UID => Cgroups::Below { cgroup, pod: cgroup, spec: self.spec_network(uid) },
            Some(pods) => Cgroups::All { of: cgroup, but: pods },
            // Pods' connections are not to be taken for the node's.
            None => return Ok(Settled::default()),
        };
        self.settle_subjects(subject, &[(subject, of, policy)])
    }

    pub(super) fn settle_divided(
        &mut self,
        uid: &str,
        pod: &Path,
        containers: &[(&Path, &CompiledPolicy)],
    ) -> Result<Settled, DatapathError> {
        let Some(pod_subject) = self.pods.get(uid).map(|pod| pod.subject) else {
            return Ok(Settled::default());
        };
        let spec = self.spec_network(uid);
        let known = containers.iter().filter_map(|(cgroup, policy)| {
            let subject = self.containers.at(cgroup, pod_subject)?;
            Some((subject, Cgroups::Below { cgroup, pod, spec }, *policy))
        });
        self.settle_subjects(pod_subject, &known.collect::<Vec<_>>())
    }

    /// What is enforced is known, and so is where it is to be.
    fn spec_network(&self, uid: &str) -> SpecNetwork {
        if self.host_network.contains(uid) { SpecNetwork::Host } else { SpecNetwork::Own }
    }

    /// Of one pod, whose subject is given. One for which another policy is in force by now is left out.
    fn settle_subjects(&mut self, pod: u32, changed: &[Changed<'_>]) -> Result<Settled, DatapathError> {
        let (mut subjects, mut states) = (Vec::new(), Vec::new());
        for (id, of, policy) in changed {
            let policy_id = self.in_force.get(id).copied().unwrap_or(0);
            if self.policies.digest(policy_id) != Some(policy.digest) {
                continue;
            }
            let what = || kernel(format!("the state of subject {id} of {}", of.root().display()));
            let state = self.maps.subjects.get(id, 0).map_err(what())?;
            let is_first = !self.classified.contains(id);
            let is_balanced = state.flags & SOCKET_BALANCER != 0;
            subjects.push(Subject { id: *id, pod, of, policy, policy_id, is_first, is_balanced });
            if is_first {
                states.push((*id, state));
            }
        }
        let settled = settle::settle(&mut self.maps, &self.directory.join("maps"), &subjects)?;
        for (id, state) in states {
            let state = SubjectState { flags: state.flags | CLASSIFIED, ..state };
            let what = kernel(format!("the state of subject {id}"));
            self.maps.set_state(id, state).map_err(what)?;
            self.classified.insert(id);
        }
        Ok(settled)
    }
}
