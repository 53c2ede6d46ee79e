//! What the agent asks of the kernel.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use l7egg_ebpf_common::abi::{COUNTERS, SubjectState};
use l7egg_policy::CompiledPolicy;

use super::error::kernel;
use super::network::Sought;
use super::pods::Pod;
use super::{HELD, Kernel, collect, events, network, node, pods, policies, sys};
use crate::datapath::{
    ContainerPolicy, Counters, Cover, Datapath, DatapathError, EnforcedPod, EventSource, Mended, NODE_UID,
    OlderPod, Settled, ShapedCounts, ShapedPod, ToldNetwork,
};
use crate::shaping::Cap;

impl Datapath for Kernel {
    fn older(&self) -> Vec<OlderPod> {
        self.older.pods().filter_map(|uid| self.older.pod(&uid)).collect()
    }

    fn leave_alone(&mut self, pods: &[PathBuf]) -> Result<(), DatapathError> {
        // One that was made anew under the same name is another.
        let ids = node::ids(pods);
        let is_told = self.pods_cgroups.as_deref() == Some(pods) && self.pods_cgroup_ids == ids;
        if !is_told {
            node::tell(&mut self.maps, pods)?;
            self.pods_cgroups = Some(pods.to_vec());
            self.pods_cgroup_ids = ids;
        }
        Ok(())
    }

    fn in_host_network(&mut self, uid: &str) {
        if !self.host_network.contains(uid) {
            self.host_network.insert(uid.into());
        }
    }

    fn enforced(&self) -> Result<Vec<EnforcedPod>, DatapathError> {
        let enforced = self.pods.iter().map(|(uid, pod)| {
            let policy = self.in_force.get(&pod.subject).copied().unwrap_or(0);
            // A pod that is attached in part, or has no policy, is one whose policy is not the wanted one.
            let digest = if pod.complete { self.policies.digest(policy) } else { None };
            EnforcedPod {
                uid: uid.clone(),
                cgroup_id: pod.cgroup_id,
                policy: digest.unwrap_or_default(),
                held: pod.complete && policy == HELD,
                subject: pod.subject,
                containers: self.enforced_containers(pod.subject),
            }
        });
        Ok(enforced.collect())
    }

    fn enforce(&mut self, uid: &str, cgroup: &Path, policy: &CompiledPolicy) -> Result<(), DatapathError> {
        let id = self.install(policy, &BTreeSet::new())?;
        self.attach(uid, cgroup, id, policies::flags(policy))
    }

    fn hold(&mut self, uid: &str, cgroup: &Path) -> Result<(), DatapathError> {
        // In force or held in this cgroup, maybe with an older version's programs: so it stays.
        let id = cgroup.metadata().map(|directory| directory.ino()).ok();
        let is_here = |pod: &Pod| id == Some(pod.cgroup_id) && pod.complete;
        let is_older = || self.older.pod(uid).is_some_and(|pod| id == Some(pod.cgroup_id));
        if self.pods.get(uid).is_some_and(is_here) || is_older() {
            return Ok(());
        }
        self.attach(uid, cgroup, HELD, 0)
    }

    fn is_on_host_network(&self, cgroup: &Path) -> bool {
        self.networks.is_host(cgroup)
    }

    fn close_gate(&mut self, parents: &[PathBuf], running: &[u64]) -> Result<(), DatapathError> {
        self.leave_alone(parents)?;
        if !self.gate.stands() {
            let before = self.older.admitted();
            for id in running.iter().filter(|id| before.as_ref().is_none_or(|it| it.contains(id))) {
                self.gate.admit(*id, &mut self.maps)?;
            }
        }
        let netns = self.networks.host_netns().map_err(kernel("finding the host's network namespace"))?;
        self.gate.close(parents, netns, &self.programs, &mut self.maps)
    }

    fn open_gate(&mut self) -> Result<(), DatapathError> {
        self.older.remove_gates()?;
        self.gate.remove(&mut self.maps)
    }

    fn waits_at_gate(&self, cgroup_id: u64) -> bool {
        self.gate.is_closed_to(cgroup_id)
    }

    fn admit(&mut self, cgroup_id: u64) -> Result<(), DatapathError> {
        if !self.gate.stands() {
            return Ok(());
        }
        // Only now: the marks of sockets that wait are in its own map, and until here it alone held them.
        self.older.remove_gates()?;
        self.gate.admit(cgroup_id, &mut self.maps)
    }

    fn retain_admitted(&mut self, is_there: &dyn Fn(u64) -> bool) {
        self.gate.retain(&mut self.maps, is_there);
    }

    fn divide(
        &mut self,
        uid: &str,
        cgroup: &Path,
        rest: &CompiledPolicy,
        containers: &[ContainerPolicy],
    ) -> Result<(), DatapathError> {
        self.divide_pod(uid, cgroup, rest, containers)
    }

    fn retire_older(&mut self, is_wanted: &dyn Fn(&str) -> bool) -> Result<(), DatapathError> {
        // A pod that was moved has nothing there any more.
        let (wanted, others): (Vec<_>, Vec<_>) = self.older.pods().partition(|uid| is_wanted(uid));
        others.iter().try_for_each(|uid| self.older.release(uid))?;
        // Nor is a limit taken off, or a gate away, before the present one is there.
        let is_needed = self.shaping.rests_on_others() || self.older.has_gate() && !self.gate.stands();
        if wanted.is_empty() && !is_needed { self.older.retire() } else { Ok(()) }
    }

    fn cover(&mut self, uid: &str, cgroup: &Path, told: &ToldNetwork) -> Result<Cover, DatapathError> {
        self.look_for_balancer(uid, cgroup)?;
        let Some(pod) = self.pods.get(uid) else { return Ok(Cover::NotYet) };
        let cover = if uid == NODE_UID || self.host_network.contains(uid) {
            self.networks.join_host(&mut self.maps, uid, pod.subject)
        } else {
            let older = self.older.pins_of(uid);
            let sought = Sought { uid, cgroup, subject: pod.subject, told, older: &older };
            self.networks.cover(&self.programs, &mut self.maps, sought)
        };
        let is_covered = matches!(cover, Ok(Cover::Whole | Cover::Part { .. } | Cover::Host));
        self.succeed(uid, cgroup, is_covered)?;
        cover
    }

    fn knows_network(&self, uid: &str) -> bool {
        let subject = self.pods.get(uid).map(|pod| pod.subject);
        subject.is_some_and(|subject| network::is_found(&self.maps, subject))
    }

    fn has_lost_network(&self, uid: &str) -> bool {
        self.networks.is_lost(uid)
    }

    fn release(&mut self, uid: &str) -> Result<(), DatapathError> {
        let Some(pod) = self.pods.get_mut(uid) else { return Ok(()) };
        let subject = pod.subject;
        self.unmended.remove(uid);
        // It is known until all is done: what fails is tried again, and what is wanted meanwhile is attached anew.
        pod.complete = false;
        // Last those that see what it asks, and what it is answered: else the backstop would deny what they had not learned.
        self.networks.release(&mut self.maps, uid, subject)?;
        pods::remove_pins(&self.pins(uid));
        self.unite(subject)?;
        self.pods.remove(uid);
        self.host_network.remove(uid);
        self.looked_for_balancer.remove(uid);
        self.classified.remove(&subject);
        self.were_free.remove(subject);
        self.let_go.insert(subject);
        self.released.insert(subject);
        Ok(())
    }

    fn settle(
        &mut self,
        uid: &str,
        cgroup: &Path,
        policy: &CompiledPolicy,
    ) -> Result<Settled, DatapathError> {
        self.settle_whole(uid, cgroup, policy)
    }

    fn settle_containers(
        &mut self,
        uid: &str,
        pod: &Path,
        containers: &[(&Path, &CompiledPolicy)],
    ) -> Result<Settled, DatapathError> {
        self.settle_divided(uid, pod, containers)
    }

    fn shaped(&self) -> Vec<ShapedPod> {
        self.shaping.shaped()
    }

    fn shape(&mut self, uid: &str, cgroup: &Path, caps: &[Cap]) -> Result<(), DatapathError> {
        // What is loaded for it would make those anew that somebody has taken away.
        self.pinned.put_maps_back()?;
        self.shaping.shape(uid, cgroup, caps)
    }

    fn unshape(&mut self, uid: &str, cgroup: Option<&Path>) -> Result<(), DatapathError> {
        self.shaping.unshape(uid, cgroup)
    }

    fn shaped_counts(&self) -> Result<ShapedCounts, DatapathError> {
        self.shaping.counts()
    }

    fn collect(&mut self) -> Result<BTreeSet<String>, DatapathError> {
        self.shaping.collect()?;
        self.forget_freedom(Instant::now())?;
        let in_use = |kernel: &Self| kernel.in_force.values().copied().collect();
        if !self.let_go.is_empty() || self.policies.has_unused(&in_use(self)) {
            // What was let go or replaced a moment ago may still be looked at.
            sys::wait_for_programs();
        }
        self.forget_let_go()?;
        let used: BTreeSet<u32> = in_use(self);
        self.policies.retain(&mut self.maps, &used)?;
        let counted = collect::learned(&mut self.maps, &self.released)?;
        let turned_away = counted.write(&mut self.maps.shares)?;
        collect::of_released(&mut self.maps, &self.released)?;
        self.released.clear();
        Ok(self.uids_of(&turned_away))
    }

    fn mend(&mut self, cgroup_of: &dyn Fn(&str) -> Option<PathBuf>) -> Result<Mended, DatapathError> {
        self.mend_pins(cgroup_of)
    }

    fn pods_at(&self, interfaces: &BTreeSet<u32>) -> BTreeSet<String> {
        let attached = |interface| self.maps.attached.get(interface, 0).ok();
        let subjects = interfaces.iter().filter_map(attached).map(|attached| attached.subject).collect();
        self.uids_of(&subjects)
    }

    fn mend_backstops(&mut self, uids: &BTreeSet<String>) -> Mended {
        let mut mended = Mended::default();
        self.look_at_backstops(uids, &mut mended);
        mended
    }

    fn counters(&self) -> Result<Counters, DatapathError> {
        let mut counters = [0; COUNTERS as usize];
        for (index, counter) in counters.iter_mut().enumerate() {
            let counts = self.maps.counts.get(&(index as u32), 0).map_err(kernel("reading map COUNTS"))?;
            *counter = counts.iter().sum();
        }
        Ok(counters)
    }

    fn events(&mut self) -> Option<Box<dyn EventSource>> {
        let ring = self.maps.events.take()?;
        match events::Ring::open(ring, &self.directory.join("maps")) {
            Ok(ring) => Some(Box::new(ring)),
            Err(error) => {
                tracing::error!(
                    error = crate::causes::causes(&error),
                    "events of the kernel cannot be read: denials are neither counted by kind nor recorded"
                );
                None
            }
        }
    }
}

impl Kernel {
    /// Clears the own states of pods that were let go. Not at once: another CPU may have been in the middle of one of their programs, and a
    /// program without a policy drops.
    pub(super) fn forget_let_go(&mut self) -> Result<(), DatapathError> {
        while let Some(subject) = self.let_go.first().copied() {
            let what = || kernel(format!("clearing subject {subject} of a pod that was let go"));
            self.maps.set_state(subject, SubjectState::default()).map_err(what())?;
            self.in_force.remove(&subject);
            self.let_go.remove(&subject);
        }
        Ok(())
    }

    /// The pods of which these are subjects, themselves or by their containers.
    fn uids_of(&self, subjects: &BTreeSet<u32>) -> BTreeSet<String> {
        let is_one = |pod: &Pod| {
            subjects.contains(&pod.subject) || !self.subjects_of(pod.subject).is_disjoint(subjects)
        };
        let found = self.pods.iter().filter(|(_, pod)| !subjects.is_empty() && is_one(pod));
        found.map(|(uid, _)| uid.clone()).collect()
    }
}
