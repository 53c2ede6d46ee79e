//! The running kernel as a [`Datapath`]: programs and maps pinned below
//! `<bpffs>/l7egg/v<ABI version>`, so that they outlive the agent.
//!
//! ```text
//! maps/<NAME>           every map
//! pods/<uid>/<hook>     a link for every hook of a pod
//! shaped/<slot>-<uid>/  links on the interfaces of a pod with bandwidth limits
//! interfaces/<uid>/…    its interfaces' host side
//! gate/<cgroup>/<hook>  links on the cgroups that hold all pods
//! ```
//!
//! `<bpffs>/l7egg/resolvers` is a [`Note`], for agents of all versions.

mod collect;
mod config;
mod connections;
mod containers;
mod datapath;
mod entries;
mod error;
mod events;
mod gate;
mod handover;
mod matchers;
mod mend;
mod names;
mod network;
mod node;
mod note;
mod pins;
mod pods;
mod policies;
mod programs;
mod settle;
mod shaping;
mod shares;
pub mod sys;
mod versions;
mod was_free;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::programs::Program;
use l7egg_ebpf_common::abi::{
    ABI_VERSION, CLASSIFIED, HOST_NETWORK, NODE, SOCKET_BALANCER, SUBJECTS_MAX, SubjectState, WAS_FREE,
};
use l7egg_policy::CompiledPolicy;

use self::containers::Containers;
use self::error::kernel;
use self::gate::Gate;
use self::handover::Pass;
use self::network::Networks;
pub use self::note::{NOTE_MAX, Note, NoteError};
use self::pins::Pins;
use self::pods::Pod;
use self::policies::Policies;
pub use self::programs::{HOOKS, Hook, Verified};
use self::programs::{Maps, Programs};
use self::shaping::Shaping;
use self::versions::Older;
use self::was_free::WereFree;
use crate::datapath::{Datapath, DatapathError, DatapathSettings, NODE_UID};

/// Policy id of a pod that has none yet: its programs let nothing leave.
const HELD: u32 = 0;
/// How often it is looked whether programs of others run for a pod.
const LOOK_FOR_BALANCER_EVERY: Duration = Duration::from_secs(10);

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
    gate: Gate,
    /// What is pinned.
    pinned: Pins,
    /// Uids of pods whose programs somebody has taken away, and that could not be attached again.
    unmended: BTreeSet<String>,
    /// The last pod whose links were looked at.
    looked_at: Option<String>,
    /// Uids of pods in the host's network.
    host_network: BTreeSet<String>,
    containers: Containers,
    /// What the node's own programs leave alone, once they have been told.
    pods_cgroups: Option<Vec<PathBuf>>,
    pods_cgroup_ids: Vec<Option<u64>>,
    /// Policy id in force, by subject.
    in_force: BTreeMap<u32, u32>,
    /// Subjects whose connections from before the programs were attached are known.
    classified: BTreeSet<u32>,
    /// Subjects that were free until a short time ago.
    were_free: WereFree,
    /// Subjects whose addresses and flows are still in the maps: their ids are not free yet.
    released: BTreeSet<u32>,
    /// Of these, the subjects whose last policy is still written.
    let_go: BTreeSet<u32>,
    /// When it was last looked whether other programs change a pod's destinations, by uid.
    looked_for_balancer: BTreeMap<String, Instant>,
    last_subject: u32,
}

impl Kernel {
    /// Loads the programs, takes over what an earlier agent left, and replaces its programs in place.
    pub fn open(settings: &DatapathSettings) -> Result<Self, DatapathError> {
        let directory = directory(&settings.bpffs);
        let (programs, mut maps) = programs::load(&directory.join("maps"), settings.tell_learned)?;
        let older = Older::find(&directory);
        let shaping = Shaping::open(&directory, older.directories())?;
        let hash_key = config::configure(&mut maps, settings, older.hash_key())?;
        let mut policies = Policies::open(&maps, hash_key)?;
        let pods: BTreeMap<String, Pod> =
            pods::open(&directory.join("pods"), &programs, &maps)?.into_iter().collect();
        let (mut in_force, mut classified) = (BTreeMap::new(), BTreeSet::new());
        let mut were_free = WereFree::default();
        for pod in pods.values() {
            let state = maps
                .subjects
                .get(&pod.subject, 0)
                .map_err(kernel(format!("reading the state of subject {}", pod.subject)))?;
            in_force.insert(pod.subject, state.policy);
            if state.flags & CLASSIFIED != 0 {
                classified.insert(pod.subject);
            }
            if state.flags & WAS_FREE != 0 {
                were_free.insert(pod.subject, Instant::now());
            }
        }
        let containers = Containers::open(&mut maps, &in_force, &mut classified)?;
        for subject in containers.subjects() {
            let state = maps.subjects.get(&subject, 0).map_err(kernel("reading map SUBJECTS"))?;
            in_force.insert(subject, state.policy);
            if state.flags & WAS_FREE != 0 {
                were_free.insert(subject, Instant::now());
            }
        }
        // What was installed and not used, or written in part, when the last agent ended.
        let used: BTreeSet<u32> = in_force.values().copied().collect();
        policies.retain(&mut maps, &used)?;
        policies::sweep(&mut maps, &used)?;
        let last_subject = in_force.keys().copied().max().unwrap_or(0);
        // Programs were replaced: what they know of connections is to be looked at again.
        maps.begin_generation().map_err(kernel("writing map GENERATION"))?;
        network::forget_unknown(&mut maps, |subject| in_force.contains_key(&subject))?;
        let is_known = |uid: &str| pods.contains_key(uid);
        let networks = Networks::open(versions::interfaces(&directory), &maps, is_known)?;
        let gate = Gate::open(directory.join("gate"), &programs, &maps)?;
        let pinned = Pins::open(&directory)?;
        let mut kernel = Self {
            directory,
            programs,
            maps,
            policies,
            shaping,
            older,
            pods,
            networks,
            gate,
            pinned,
            unmended: BTreeSet::new(),
            looked_at: None,
            host_network: BTreeSet::new(),
            containers,
            pods_cgroups: None,
            pods_cgroup_ids: Vec::new(),
            in_force,
            classified,
            were_free,
            released: BTreeSet::new(),
            let_go: BTreeSet::new(),
            looked_for_balancer: BTreeMap::new(),
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
        let id = self.install(policy, &BTreeSet::new())?;
        self.switch(0, id, policies::flags(policy), 0)?;
        self.released.insert(0);
        self.collect().map(drop)
    }

    fn pins(&self, uid: &str) -> PathBuf {
        self.directory.join("pods").join(uid)
    }

    /// The id of a policy, which is in the maps then. `pending` are others to which nobody has been switched yet.
    fn install(&mut self, policy: &CompiledPolicy, pending: &BTreeSet<u32>) -> Result<u32, DatapathError> {
        let used = |kernel: &Self| kernel.in_force.values().chain(pending).copied().collect();
        let in_use = used(self);
        match self.policies.install(&mut self.maps, policy, &in_use) {
            Err(DatapathError::MapFull { .. }) if !self.let_go.is_empty() => {
                sys::wait_for_programs();
                self.forget_let_go()?;
                let in_use = used(self);
                self.policies.install(&mut self.maps, policy, &in_use)
            }
            result => result,
        }
    }

    /// One write of eight bytes: a packet sees the old policy or the new one. `paths` is of [`Self::paths`].
    fn switch(&mut self, subject: u32, id: u32, enforcement: u32, paths: u32) -> Result<(), DatapathError> {
        let classified = if self.classified.contains(&subject) { CLASSIFIED } else { 0 };
        let was_free = self.were_free.flag(subject);
        let state = SubjectState { policy: id, flags: enforcement | classified | was_free | paths };
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

    /// Programs of others come and go while a policy stays: a load balancer that is installed, or an older version's that looked
    /// like one.
    fn look_for_balancer(&mut self, uid: &str, cgroup: &Path) -> Result<(), DatapathError> {
        let now = Instant::now();
        let is_new = |at: &Instant| now.saturating_duration_since(*at) < LOOK_FOR_BALANCER_EVERY;
        let Some(pod) = self.pods.get(uid).filter(|pod| pod.complete) else { return Ok(()) };
        if self.looked_for_balancer.get(uid).is_some_and(is_new) {
            return Ok(());
        }
        let subject = pod.subject;
        self.looked_for_balancer.insert(uid.to_owned(), now);
        let balancer = self.paths(uid, cgroup)? & SOCKET_BALANCER;
        for subject in std::iter::once(subject).chain(self.subjects_of(subject)) {
            let what = || kernel(format!("the state of subject {subject} of pod {uid}"));
            let state = self.maps.subjects.get(&subject, 0).map_err(what())?;
            if state.flags & SOCKET_BALANCER != balancer {
                let flags = state.flags & !SOCKET_BALANCER | balancer;
                self.maps.set_state(subject, SubjectState { flags, ..state }).map_err(what())?;
            }
        }
        Ok(())
    }

    /// Puts a policy in force for a pod, and attaches what is not attached yet.
    fn attach(&mut self, uid: &str, cgroup: &Path, id: u32, enforcement: u32) -> Result<(), DatapathError> {
        let known = self.pods.get(uid).cloned();
        let subject = match &known {
            Some(pod) => pod.subject,
            None => self.free_subject()?,
        };
        match known {
            None => self.note_freedom(uid, cgroup, subject),
            // Of a pod that is divided no more some container may have been free.
            Some(_) if self.has_free_container(subject) => self.were_free.insert(subject, Instant::now()),
            Some(_) => {}
        }
        // Before the programs are attached, so that they never run without it.
        let paths = self.paths(uid, cgroup)?;
        self.gather(subject, Pass::Before)?;
        self.switch(subject, id, enforcement, paths)?;
        self.gather(subject, Pass::After)?;
        self.unite(subject)?;
        // So that what the pod has learned is never missing. What comes until the old programs go: `succeed`.
        self.older.take_over(uid, cgroup, subject, &mut self.maps);
        let pins = self.pins(uid);
        match pods::attach(&pins, uid, cgroup, subject, &self.programs, &mut self.maps) {
            Ok(pod) => {
                self.pods.insert(uid.into(), pod);
                Ok(())
            }
            Err(error) => {
                if known.is_none() {
                    pods::remove_pins(&pins);
                    self.in_force.remove(&subject);
                    self.were_free.remove(subject);
                    self.released.insert(subject);
                    // What was taken over is not to be another pod's that gets this id.
                    network::forget(&mut self.maps, subject)?;
                }
                Err(error)
            }
        }
    }

    /// Takes another version's programs from a pod, once there is nothing that they alone enforce: whose backstop is there needs
    /// the present one first.
    fn succeed(&mut self, uid: &str, cgroup: &Path, is_covered: bool) -> Result<(), DatapathError> {
        let Some(pod) = self.pods.get(uid).filter(|pod| pod.complete) else { return Ok(()) };
        if !self.older.knows(uid) || !is_covered && self.older.covers(uid) {
            return Ok(());
        }
        let subject = pod.subject;
        self.older.take_over(uid, cgroup, subject, &mut self.maps);
        self.scatter(subject, Pass::After)?;
        self.older.release(uid)?;
        // The old ones looked like programs of others.
        self.looked_for_balancer.remove(uid);
        self.look_for_balancer(uid, cgroup)
    }

    fn free_subject(&mut self) -> Result<u32, DatapathError> {
        for _ in 1..SUBJECTS_MAX {
            self.last_subject = if self.last_subject + 1 >= SUBJECTS_MAX { 1 } else { self.last_subject + 1 };
            let id = self.last_subject;
            if !self.in_force.contains_key(&id) && !self.released.contains(&id) {
                network::forget_network(&mut self.maps, id)?;
                let forgotten = self.maps.conversations.set(id, 0, 0);
                forgotten.map_err(kernel("clearing what map CONVERSATIONS counts"))?;
                return Ok(id);
            }
        }
        Err(DatapathError::MapFull {
            map: "SUBJECTS",
            advice: format!(
                "{} pods, and containers that are told apart, are the most for one node",
                SUBJECTS_MAX - 1
            ),
        })
    }

    /// Addresses that pods learned which are no more, from the time of another agent.
    fn forget_unknown_subjects(&mut self) -> Result<(), DatapathError> {
        let mut unknown = BTreeSet::new();
        let mut see = |subject| {
            if !self.in_force.contains_key(&subject) {
                unknown.insert(subject);
            }
        };
        entries::each(&self.maps.learned, "LEARNED", |key, _| see(key.subject))?;
        entries::each(&self.maps.flows, "FLOWS", |key, _| see(key.subject))?;
        entries::each(&self.maps.inbound, "INBOUND", |key, _| see(key.subject))?;
        self.released = unknown;
        self.collect().map(drop)
    }
}

/// Detaches every pod, puts the interfaces of shaped pods back, and removes every pin, of every version. What cannot be removed
/// keeps its pins, so that it can be tried again.
pub fn remove_everything(bpffs: &Path) -> Result<(), DatapathError> {
    let root = bpffs.join("l7egg");
    let versions = versions::all(&root);
    let mut result = shaping::unshape_all(&versions);
    let interfaces: Vec<PathBuf> = versions.iter().map(|version| versions::interfaces(version)).collect();
    for version in &versions {
        result = result.and(versions::detach(version, &interfaces));
    }
    result?;
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(kernel(format!("removing {}", root.display()))(error))
        }
        _ => Ok(()),
    }
}

fn directory(bpffs: &Path) -> PathBuf {
    bpffs.join("l7egg").join(format!("v{ABI_VERSION}"))
}
