//! The running kernel as a [`Datapath`]: programs and maps pinned below
//! `<bpffs>/l7egg/v<ABI version>`, so that they outlive the agent.
//!
//! ```text
//! maps/<NAME>           every map
//! pods/<uid>/<hook>     a link for every hook of a pod
//! shaped/<slot>-<uid>/  links on the interfaces of a pod with bandwidth limits
//! interfaces/<uid>/…    its interfaces' host side
//! ```

mod collect;
mod containers;
mod error;
mod events;
mod matchers;
mod names;
mod network;
mod node;
mod pods;
mod policies;
mod programs;
mod settle;
mod shaping;
pub(crate) mod sys;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::programs::Program;
use l7egg_ebpf_common::abi::{
    ABI_VERSION, CLASSIFIED, COUNTERS, Config, HOST_NETWORK, NODE, SOCKET_BALANCER, SUBJECTS_MAX,
    SubjectState,
};
use l7egg_ebpf_common::name::hash_key;
use l7egg_policy::CompiledPolicy;

use self::containers::Containers;
use self::error::kernel;
use self::network::Networks;
use self::pods::Pod;
use self::policies::Policies;
pub use self::programs::{HOOKS, Hook, Verified};
use self::programs::{Maps, Programs};
use self::settle::Cgroups;
use self::shaping::Shaping;
use self::versions::Older;
use crate::clock::boot_ns;
use crate::datapath::{
    ContainerPolicy, Counters, Cover, Datapath, DatapathError, DatapathSettings, EnforcedPod, EventSource,
    NODE_UID, Settled, ShapedCounts, ShapedPod,
};
use crate::shaping::Cap;

/// Policy id of a pod that has none yet: its programs let nothing leave.
const HELD: u32 = 0;

/// The kernel's programs and maps, and what this agent knows of them.
pub struct Kernel {
    directory: PathBuf,
    programs: Programs,
    maps: Maps,
    policies: Policies,
    shaping: Shaping,
    /// What agents of other versions left.
    older: Older,
    pods: BTreeMap<String, Pod>,
    networks: Networks,
    /// Uids of pods in the host's network.
    host_network: BTreeSet<String>,
    containers: Containers,
    /// What the node's own programs leave alone, once they have been told.
    pods_cgroups: Option<Vec<PathBuf>>,
    /// Policy id in force, by subject.
    in_force: BTreeMap<u32, u32>,
    /// Subjects whose connections from before the programs were attached are known.
    classified: BTreeSet<u32>,
    /// Subjects whose addresses and flows are still in the maps: their ids are not free yet.
    released: BTreeSet<u32>,
    last_subject: u32,
}

impl Kernel {
    /// Loads the programs, takes over what an earlier agent left, and replaces its programs in place.
    pub fn open(settings: &DatapathSettings) -> Result<Self, DatapathError> {
        let directory = directory(&settings.bpffs);
        let (programs, mut maps) = programs::load(&directory.join("maps"), settings.tell_learned)?;
        let shaping = Shaping::open(&directory)?;
        let older = Older::find(&directory);
        let hash_key = configure(&mut maps, settings, older.hash_key())?;
        let mut policies = Policies::open(&maps, hash_key)?;
        let pods: BTreeMap<String, Pod> =
            pods::open(&directory.join("pods"), &programs, &maps)?.into_iter().collect();
        let (mut in_force, mut classified) = (BTreeMap::new(), BTreeSet::new());
        for pod in pods.values() {
            let state = maps
                .subjects
                .get(&pod.subject, 0)
                .map_err(kernel(format!("reading the state of subject {}", pod.subject)))?;
            in_force.insert(pod.subject, state.policy);
            if state.flags & CLASSIFIED != 0 {
                classified.insert(pod.subject);
            }
        }
        let containers = Containers::open(&mut maps, &in_force, &mut classified)?;
        for subject in containers.subjects() {
            let state = maps.subjects.get(&subject, 0).map_err(kernel("reading map SUBJECTS"))?;
            in_force.insert(subject, state.policy);
        }
        // What was installed and not used, or written in part, when the last agent ended.
        let used: BTreeSet<u32> = in_force.values().copied().collect();
        policies.retain(&mut maps, &used)?;
        policies::sweep(&mut maps, &used)?;
        let last_subject = in_force.keys().copied().max().unwrap_or(0);
        // Programs were replaced: what they know of connections is to be looked at again.
        maps.begin_generation().map_err(kernel("writing map GENERATION"))?;
        network::forget_unknown(&mut maps, |subject| in_force.contains_key(&subject))?;
        let networks = Networks::open(directory.join("interfaces"))?;
        let mut kernel = Self {
            directory,
            programs,
            maps,
            policies,
            shaping,
            older,
            pods,
            networks,
            host_network: BTreeSet::new(),
            containers,
            pods_cgroups: None,
            in_force,
            classified,
            released: BTreeSet::new(),
            last_subject,
        };
        kernel.forget_unknown_subjects()?;
        Ok(kernel)
    }

    /// What the verifier says of each program.
    pub fn verified(&self) -> Result<Vec<Verified>, DatapathError> {
        let shape = Verified { program: "shape", instructions: self.shaping.verified()? };
        Ok(self.programs.verified()?.into_iter().chain([shape]).collect())
    }

    /// Runs a program on a packet as the pod with subject id 0 (`BPF_PROG_TEST_RUN`); tests and benchmarks
    /// give it a policy by [`Self::enforce_test_subject`].
    pub fn program(&mut self, name: &str) -> Option<&mut Program> {
        self.programs.program_mut(name)
    }

    /// Makes `policy` the one of subject 0, for which programs run that are not attached, and forgets what
    /// it learned before.
    pub fn enforce_test_subject(&mut self, policy: &CompiledPolicy) -> Result<(), DatapathError> {
        let id = self.policies.install(&mut self.maps, policy)?;
        self.switch(0, id, policies::flags(policy), 0)?;
        self.released.insert(0);
        self.collect()
    }

    fn pins(&self, uid: &str) -> PathBuf {
        self.directory.join("pods").join(uid)
    }

    /// One write of eight bytes: a packet sees the old policy or the new one. `paths` is of [`Self::paths`].
    fn switch(&mut self, subject: u32, id: u32, enforcement: u32, paths: u32) -> Result<(), DatapathError> {
        let classified = if self.classified.contains(&subject) { CLASSIFIED } else { 0 };
        let state = SubjectState { policy: id, flags: enforcement | classified | paths };
        self.maps
            .set_state(subject, state)
            .map_err(kernel(format!("switching subject {subject} to policy {id}")))?;
        self.in_force.insert(subject, id);
        Ok(())
    }

    /// What may come between what a pod's programs ask for and where their packets go, as flags.
    fn paths(&self, uid: &str, cgroup: &Path) -> Result<u32, DatapathError> {
        let balancer = if pods::has_socket_balancer(cgroup, &self.programs)? { SOCKET_BALANCER } else { 0 };
        let network = if self.host_network.contains(uid) { HOST_NETWORK } else { 0 };
        let node = if uid == NODE_UID { NODE | HOST_NETWORK } else { 0 };
        Ok(balancer | network | node)
    }

    /// Puts a policy in force for a pod, and attaches what is not attached yet.
    fn attach(&mut self, uid: &str, cgroup: &Path, id: u32, enforcement: u32) -> Result<(), DatapathError> {
        let known = self.pods.get(uid).cloned();
        let subject = match &known {
            Some(pod) => pod.subject,
            None => self.free_subject()?,
        };
        // Before the programs are attached, so that they never run without it.
        let paths = self.paths(uid, cgroup)?;
        self.gather(subject, containers::Pass::Before)?;
        self.switch(subject, id, enforcement, paths)?;
        self.gather(subject, containers::Pass::After)?;
        self.unite(subject)?;
        // Before as well, so that what the pod has learned is never missing; afterwards for what came in between.
        self.older.take_over(uid, cgroup, subject, &mut self.maps);
        let pins = self.pins(uid);
        match pods::attach(&pins, uid, cgroup, subject, &self.programs, &mut self.maps) {
            Ok(pod) => {
                self.pods.insert(uid.into(), pod);
                if !self.older.knows(uid) {
                    return Ok(());
                }
                self.older.take_over(uid, cgroup, subject, &mut self.maps);
                self.older.release(uid)?;
                // The old ones looked like programs of others.
                let paths = self.paths(uid, cgroup)?;
                self.switch(subject, id, enforcement, paths)
            }
            Err(error) => {
                if known.is_none() {
                    pods::remove_pins(&pins);
                    self.in_force.remove(&subject);
                    self.released.insert(subject);
                }
                Err(error)
            }
        }
    }

    /// Looks at the connections of a subject, whose cgroups and whose pod's subject are given.
    fn settle_subject(
        &mut self,
        subject: u32,
        pod: u32,
        of: &Cgroups<'_>,
        policy: &CompiledPolicy,
    ) -> Result<Settled, DatapathError> {
        let policy_id = self.in_force.get(&subject).copied().unwrap_or(0);
        if self.policies.digest(policy_id) != Some(policy.digest) {
            return Ok(Settled::default());
        }
        let is_first = !self.classified.contains(&subject);
        let what = || kernel(format!("the state of subject {subject} of {}", of.root().display()));
        let state = self.maps.subjects.get(&subject, 0).map_err(what())?;
        let is_balanced = state.flags & SOCKET_BALANCER != 0;
        let looked_at = settle::Subject { id: subject, pod, of, policy, policy_id, is_first, is_balanced };
        let connections = self.directory.join("maps/CONNECTIONS");
        let settled = settle::settle(&mut self.maps, &connections, &looked_at)?;
        if is_first {
            let state = SubjectState { flags: state.flags | CLASSIFIED, ..state };
            self.maps.set_state(subject, state).map_err(what())?;
            self.classified.insert(subject);
        }
        Ok(settled)
    }

    fn free_subject(&mut self) -> Result<u32, DatapathError> {
        for _ in 1..SUBJECTS_MAX {
            self.last_subject = if self.last_subject + 1 >= SUBJECTS_MAX { 1 } else { self.last_subject + 1 };
            let id = self.last_subject;
            if !self.in_force.contains_key(&id) && !self.released.contains(&id) {
                return Ok(id);
            }
        }
        Err(DatapathError::MapFull {
            map: "SUBJECTS",
            advice: format!("{SUBJECTS_MAX} pods are the most for one node"),
        })
    }

    /// Addresses that pods learned which are no more, from the time of another agent.
    fn forget_unknown_subjects(&mut self) -> Result<(), DatapathError> {
        let mut unknown = BTreeSet::new();
        for key in self.maps.learned.keys() {
            let key = key.map_err(kernel("reading map LEARNED"))?;
            if !self.in_force.contains_key(&key.subject) {
                unknown.insert(key.subject);
            }
        }
        for key in self.maps.flows.keys() {
            let key = key.map_err(kernel("reading map FLOWS"))?;
            if !self.in_force.contains_key(&key.subject) {
                unknown.insert(key.subject);
            }
        }
        self.released = unknown;
        self.collect()
    }
}

impl Datapath for Kernel {
    fn leave_alone(&mut self, pods: &[PathBuf]) -> Result<(), DatapathError> {
        if self.pods_cgroups.as_deref() != Some(pods) {
            node::tell(&mut self.maps, pods)?;
            self.pods_cgroups = Some(pods.to_vec());
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
        let id = self.policies.install(&mut self.maps, policy)?;
        self.attach(uid, cgroup, id, policies::flags(policy))
    }

    fn hold(&mut self, uid: &str, cgroup: &Path) -> Result<(), DatapathError> {
        // In force or held in this cgroup, maybe with an older version's programs: so it stays.
        let is_here = |pod: &Pod| cgroup.metadata().is_ok_and(|it| it.ino() == pod.cgroup_id) && pod.complete;
        if self.older.knows(uid) || self.pods.get(uid).is_some_and(is_here) {
            return Ok(());
        }
        self.attach(uid, cgroup, HELD, 0)
    }

    fn is_on_host_network(&self, cgroup: &Path) -> bool {
        self.networks.is_host(cgroup)
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
        if self.older.pods().any(|uid| is_wanted(&uid)) { Ok(()) } else { self.older.retire() }
    }

    fn cover(&mut self, uid: &str, cgroup: &Path) -> Result<Cover, DatapathError> {
        let Some(pod) = self.pods.get(uid) else { return Ok(Cover::NotYet) };
        if uid == NODE_UID || self.host_network.contains(uid) {
            return self.networks.join_host(&mut self.maps, uid, pod.subject);
        }
        self.networks.cover(&self.programs, &mut self.maps, uid, cgroup, pod.subject)
    }

    fn release(&mut self, uid: &str) -> Result<(), DatapathError> {
        let Some(pod) = self.pods.remove(uid) else { return Ok(()) };
        self.networks.release(&mut self.maps, uid, pod.subject)?;
        self.host_network.remove(uid);
        // Detached first: a program without a policy drops.
        pods::remove_pins(&self.pins(uid));
        self.unite(pod.subject)?;
        self.maps
            .set_state(pod.subject, SubjectState::default())
            .map_err(kernel(format!("clearing subject {} of pod {uid}", pod.subject)))?;
        self.in_force.remove(&pod.subject);
        self.classified.remove(&pod.subject);
        self.released.insert(pod.subject);
        Ok(())
    }

    fn settle(
        &mut self,
        uid: &str,
        cgroup: &Path,
        policy: &CompiledPolicy,
    ) -> Result<Settled, DatapathError> {
        let Some(pod) = self.pods.get(uid) else { return Ok(Settled::default()) };
        let subject = pod.subject;
        let pods = self.pods_cgroups.clone();
        let of = match &pods {
            _ if uid != NODE_UID => Cgroups::Below { cgroup, pod: cgroup },
            Some(pods) => Cgroups::All { of: cgroup, but: pods },
            // Pods' connections are not to be taken for the node's.
            None => return Ok(Settled::default()),
        };
        self.settle_subject(subject, subject, &of, policy)
    }

    fn settle_container(
        &mut self,
        uid: &str,
        pod: &Path,
        container: &Path,
        policy: &CompiledPolicy,
    ) -> Result<Settled, DatapathError> {
        let Some(pod_subject) = self.pods.get(uid).map(|pod| pod.subject) else {
            return Ok(Settled::default());
        };
        match self.containers.at(container, pod_subject) {
            Some(subject) => {
                let of = Cgroups::Below { cgroup: container, pod };
                self.settle_subject(subject, pod_subject, &of, policy)
            }
            None => Ok(Settled::default()),
        }
    }

    fn shaped(&self) -> Vec<ShapedPod> {
        self.shaping.shaped()
    }

    fn shape(&mut self, uid: &str, cgroup: &Path, caps: &[Cap]) -> Result<(), DatapathError> {
        self.shaping.shape(uid, cgroup, caps)
    }

    fn unshape(&mut self, uid: &str, cgroup: Option<&Path>) -> Result<(), DatapathError> {
        self.shaping.unshape(uid, cgroup)
    }

    fn shaped_counts(&self) -> Result<ShapedCounts, DatapathError> {
        self.shaping.counts()
    }

    fn collect(&mut self) -> Result<(), DatapathError> {
        self.shaping.collect()?;
        let used: BTreeSet<u32> = self.in_force.values().copied().collect();
        self.policies.retain(&mut self.maps, &used)?;
        collect::learned(&mut self.maps, boot_ns(), &self.released)?;
        collect::flows(&mut self.maps, &self.released)?;
        collect::inherited(&mut self.maps, &self.released)?;
        self.released.clear();
        Ok(())
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

/// Detaches every pod, puts the interfaces of shaped pods back, and removes every pin, of every version.
pub fn remove_everything(bpffs: &Path) -> Result<(), DatapathError> {
    let root = bpffs.join("l7egg");
    let unshaped = shaping::unshape_all(&directory(bpffs));
    let mut versions = fs::read_dir(&root).into_iter().flatten().flatten();
    let uncovered = versions.try_for_each(|version| network::detach_all(&version.path().join("interfaces")));
    match fs::remove_dir_all(&root) {
        Ok(()) => uncovered.and(unshaped),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(kernel(format!("removing {}", root.display()))(error)),
    }
}

fn directory(bpffs: &Path) -> PathBuf {
    bpffs.join("l7egg").join(format!("v{ABI_VERSION}"))
}

/// Writes the settings; the secret of the name hash is made once, because the maps are full of hashes.
fn configure(
    maps: &mut Maps,
    settings: &DatapathSettings,
    before: Option<[u32; 2]>,
) -> Result<[u32; 2], DatapathError> {
    let known = maps.config.get(&0, 0).map_err(kernel("reading map CONFIG"))?;
    let hash_key = match before {
        _ if known.hash_key[0] != 0 => known.hash_key,
        Some(before) => before,
        None => [hash_key(random()?), hash_key(random()?)],
    };
    let config = Config {
        hash_key,
        min_ttl_ns: settings.min_ttl.as_nanos() as u64,
        max_ttl_ns: settings.max_ttl.as_nanos() as u64,
        ttl_grace_ns: settings.ttl_grace.as_nanos() as u64,
    };
    maps.config.set(0, config, 0).map_err(kernel("writing map CONFIG"))?;
    Ok(hash_key)
}

fn random() -> Result<u32, DatapathError> {
    let mut bytes = [0u8; 4];
    // SAFETY: the buffer is as long as said.
    let read = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if read != 4 {
        return Err(kernel("asking the kernel for random bytes")(std::io::Error::last_os_error()));
    }
    Ok(u32::from_ne_bytes(bytes))
}
