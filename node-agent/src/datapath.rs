//! What the agent asks of the kernel, and nothing about how. [`Datapath`] is implemented by the kernel
//! module for the running kernel, and by a fake in tests.
//!
//! Calls are a few system calls each and block for microseconds to milliseconds; one thread owns the
//! datapath and makes all of them.

mod error;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use l7egg_ebpf_common::abi::{Address, COUNTERS, Event, ShapeCounts};
use l7egg_policy::CompiledPolicy;

pub use error::{DatapathError, MAP_FULL, NETWORK_NOT_FOUND, NETWORK_NOT_READY};

use crate::flow_log::Learned;
use crate::netns::SpecNetwork;
use crate::shaping::Cap;

/// Uid of the node itself, beside those of its pods: all processes that are in no pod.
pub const NODE_UID: &str = "node";

/// SHA-256 over everything that a compiled policy writes to the kernel: equal digests, equal policies.
pub type Digest = [u8; 32];

/// A count for each [`l7egg_ebpf_common::abi::Counter`], by its index, summed over all CPUs.
pub type Counters = [u64; COUNTERS as usize];

/// Where and how a datapath is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatapathSettings {
    /// Mount point of bpffs; pins live below `l7egg/<ABI version>` in it.
    pub bpffs: PathBuf,
    /// An answer is believed at least this long, whatever its TTL.
    pub min_ttl: Duration,
    /// An answer is believed at most this long, whatever its TTL.
    pub max_ttl: Duration,
    /// And so long after that.
    pub ttl_grace: Duration,
    /// An event for every address that is learned. What cannot be learned always is one.
    pub tell_learned: bool,
}

impl DatapathSettings {
    /// For as long as no agent has said what it wants.
    #[must_use]
    pub fn at_boot(bpffs: &Path) -> Self {
        let second = Duration::from_secs(1);
        DatapathSettings {
            bpffs: bpffs.to_owned(),
            min_ttl: Duration::ZERO,
            max_ttl: second,
            ttl_grace: second,
            tell_learned: false,
        }
    }
}

/// A pod whose sending the kernel shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapedPod {
    /// Uid of the pod.
    pub uid: String,
    /// Its caps, as they were given to [`Datapath::shape`]; not known while they are of an earlier agent's
    /// time. They hold all the same.
    pub caps: Option<Vec<Cap>>,
}

/// What the programs did to the packets of shaped pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShapedCounts {
    /// By uid of the pod.
    pub pods: BTreeMap<String, ShapeCounts>,
    /// By cap.
    pub caps: Vec<CapCounts>,
}

/// What one cap did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapCounts {
    /// The text of its [`crate::shaping::CapName`].
    pub name: String,
    /// Packets under it, and what it did to them.
    pub counts: ShapeCounts,
}

/// A pod that the kernel enforces a policy for, this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforcedPod {
    /// Uid of the pod, as it was given to [`Datapath::enforce`].
    pub uid: String,
    /// Id of the cgroup that the programs are attached to: the inode number of its directory.
    pub cgroup_id: u64,
    /// The policy in force. All zeroes while there is none, or not wholly.
    pub policy: Digest,
    /// Whether it is held: attached, without a policy, so that nothing may leave it.
    pub held: bool,
    /// Subject id of the pod, by which [`Event`]s name it.
    pub subject: u32,
    /// Its containers by the ids of their cgroups, if it is divided. The policy is of what belongs to none of them, then.
    pub containers: Option<BTreeMap<u64, EnforcedContainer>>,
}

/// A container of a divided pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforcedContainer {
    /// Its name in the pod's spec.
    pub name: String,
    /// Its subject id; 0 if it is free.
    pub subject: u32,
    /// The policy in force for it; none if it is free.
    pub policy: Option<Digest>,
}

/// What [`Datapath::divide`] is told of a container.
#[derive(Clone, Debug)]
pub struct ContainerPolicy {
    /// Id of its cgroup, one level below the pod's.
    pub cgroup: u64,
    /// Its name in the pod's spec.
    pub name: String,
    /// What is to be in force for it.
    pub wanted: Wanted,
}

/// What is to be in force for a container.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Nothing: no Egg is for it.
    Free,
    /// This policy.
    Policy(Arc<CompiledPolicy>),
    /// What is in force for it now.
    AsBefore,
}

/// What is told of a pod's network, beside what is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldNetwork {
    /// What the pod's spec says.
    pub spec: SpecNetwork,
    /// The addresses that its status has, which it gets some time after its network; nothing where nobody is going to tell.
    pub addresses: Option<Vec<IpAddr>>,
}

impl ToldNetwork {
    /// The addresses that are known.
    #[must_use]
    pub fn known_addresses(&self) -> &[IpAddr] {
        self.addresses.as_deref().unwrap_or_default()
    }
}

/// What of a pod's interfaces has the backstop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cover {
    /// The pod has no network of its own yet, or that has no addresses.
    NotYet,
    /// None can be had: the pod is in the host's network, whose interfaces are the node's.
    Host,
    /// Every one.
    Whole,
    /// Not those that have no other end on the host (ipvlan, macvlan, hardware).
    Part {
        /// Their names in the pod.
        uncovered: Vec<String>,
    },
}

/// A pod as another version left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OlderPod {
    /// Uid of the pod.
    pub uid: String,
    /// Inode number of its cgroup's directory.
    pub cgroup_id: u64,
    /// Nothing may leave it.
    pub held: bool,
}

/// The kernel's side of the agent.
pub trait Datapath: Send {
    /// Every pod of this node that something is attached for, including what an earlier agent left.
    /// Called at every pass of the reconciler, so answered from memory where that is sound.
    fn enforced(&self) -> Result<Vec<EnforcedPod>, DatapathError>;

    /// The pods that another version's programs are attached for, which go on enforcing what they know.
    fn older(&self) -> Vec<OlderPod> {
        Vec::new()
    }

    /// Tells which directories hold pods and nothing else, for the node ([`NODE_UID`]), which is enforced after that.
    /// Called whenever they change.
    fn leave_alone(&mut self, pods: &[PathBuf]) -> Result<(), DatapathError> {
        let _ = pods;
        Ok(())
    }

    /// Says that a pod is in the host's network. Before it is enforced; it may be repeated.
    fn in_host_network(&mut self, pod_uid: &str) {
        let _ = pod_uid;
    }

    /// Makes `policy` the one in force for the pod: installs the policy unless its digest is installed,
    /// attaches the programs to `cgroup` unless they are, and switches the pod over in one step. A pod that
    /// was attached to another cgroup (its directory was made anew) moves to this one. May be repeated.
    /// When it fails, what was in force before still is.
    fn enforce(&mut self, pod_uid: &str, cgroup: &Path, policy: &CompiledPolicy)
    -> Result<(), DatapathError>;

    /// Holds a pod that nothing is in force for yet: attaches the programs, which let nothing leave it until a policy is
    /// in force or it is released. Held already, it stays so; a pod with a policy keeps it.
    fn hold(&mut self, pod_uid: &str, cgroup: &Path) -> Result<(), DatapathError>;

    /// Whether the processes of a pod are in the network of its node; false while there are none, or it is not known.
    /// True as well, for some milliseconds, of a pod whose first process is just being started. Not of one whose oldest process is the
    /// runtime's, if others are in a network of the pod's own.
    fn is_on_host_network(&self, cgroup: &Path) -> bool {
        let _ = cgroup;
        false
    }

    /// Lets nothing leave pods that have not been admitted, also while no agent runs. `parents` are the cgroups that hold all pods,
    /// `running` the ids of the cgroups of those that run when this is done for the first time: they are admitted. Repeated
    /// whenever the cgroups were read.
    fn close_gate(&mut self, parents: &[PathBuf], running: &[u64]) -> Result<(), DatapathError> {
        let _ = (parents, running);
        Ok(())
    }

    /// Takes away what [`Datapath::close_gate`] has put up, in this agent's time or before.
    fn open_gate(&mut self) -> Result<(), DatapathError> {
        Ok(())
    }

    /// Whether the pod with this cgroup has not been admitted where it would have to be.
    fn waits_at_gate(&self, cgroup_id: u64) -> bool {
        let _ = cgroup_id;
        false
    }

    /// Admits the pod with this cgroup: something of its own decides what may leave it, or nothing does. Called when all pods
    /// that are to be held are.
    fn admit(&mut self, cgroup_id: u64) -> Result<(), DatapathError> {
        let _ = cgroup_id;
        Ok(())
    }

    /// Forgets the admitted pods that are no more.
    fn retain_admitted(&mut self, is_there: &dyn Fn(u64) -> bool) {
        let _ = is_there;
    }

    /// The same as [`Datapath::enforce`] for a pod whose containers have policies of their own. What is in none of these containers, a new one too, may
    /// send nothing but replies (`rest`). What the pod has learned as a whole its containers know when it becomes divided, and the
    /// other way round when [`Datapath::enforce`] unites it again: nothing that goes on and is allowed is cut, and nothing opens in between.
    fn divide(
        &mut self,
        pod_uid: &str,
        cgroup: &Path,
        rest: &CompiledPolicy,
        containers: &[ContainerPolicy],
    ) -> Result<(), DatapathError>;

    /// Removes what agents of other versions left, with other maps, but of pods that are wanted and enforced by nothing else.
    /// Called at every pass in which it is known which pods are to be enforced.
    fn retire_older(&mut self, is_wanted: &dyn Fn(&str) -> bool) -> Result<(), DatapathError> {
        let _ = is_wanted;
        Ok(())
    }

    /// Finds the pod's network, so that only what comes from there is believed, and puts the backstop on the host's
    /// side of its interfaces. Called every 10 ms while a pod is new, because its network comes later than its cgroup, and then at every pass or so.
    /// What the programs on the cgroup enforce does not depend on it.
    fn cover(&mut self, pod_uid: &str, cgroup: &Path, told: &ToldNetwork) -> Result<Cover, DatapathError> {
        let _ = (pod_uid, cgroup, told);
        Ok(Cover::NotYet)
    }

    /// Whether it is known which network is the pod's, maybe by what an agent before this one has found.
    fn knows_network(&self, pod_uid: &str) -> bool {
        let _ = pod_uid;
        false
    }

    /// Whether the process has ended whose network is the pod's, and no other one has been found yet: its sandbox may be made anew.
    fn has_lost_network(&self, pod_uid: &str) -> bool {
        let _ = pod_uid;
        false
    }

    /// Detaches the pod and forgets what it learned. Nothing happens for a pod that is not enforced.
    fn release(&mut self, pod_uid: &str) -> Result<(), DatapathError>;

    /// Resets the pod's TCP connections that the policy, which has just been put in force, does not allow any
    /// more, so that both ends notice at once; their packets are dropped already. Nothing happens if another
    /// policy is in force. After the first policy this also tells apart who opened the connections from before. Those
    /// to the pod's resolvers of which nobody has seen the beginning are reset, too, so that they are opened again and can be read.
    fn settle(
        &mut self,
        pod_uid: &str,
        cgroup: &Path,
        policy: &CompiledPolicy,
    ) -> Result<Settled, DatapathError>;

    /// The same for containers of a divided pod, with the cgroup and the policy of each: the pod's sockets are read once.
    fn settle_containers(
        &mut self,
        pod_uid: &str,
        pod: &Path,
        containers: &[(&Path, &CompiledPolicy)],
    ) -> Result<Settled, DatapathError>;

    /// Every pod that is shaped, including those of an earlier agent's time. Answered from memory.
    fn shaped(&self) -> Vec<ShapedPod>;

    /// Makes these the caps of the pod; they are at most [`l7egg_ebpf_common::abi::CAPS_PER_POD`]. May be
    /// repeated. A change of the rates alone is a write to a map. When it fails for a pod that is not shaped
    /// yet, nothing is changed.
    fn shape(&mut self, pod_uid: &str, cgroup: &Path, caps: &[Cap]) -> Result<(), DatapathError>;

    /// Takes all caps off a pod, and puts its interfaces back as they were. `cgroup` is missing if the pod has
    /// ended, and its interfaces with it. The pod stays among those that are shaped while what its caps have delayed still waits
    /// there, some seconds at most: then this is to be asked for again.
    fn unshape(&mut self, pod_uid: &str, cgroup: Option<&Path>) -> Result<(), DatapathError>;

    /// What the shaping programs counted.
    fn shaped_counts(&self) -> Result<ShapedCounts, DatapathError>;

    /// Removes what nothing uses any more: policies without a pod, learned addresses and flows that ran
    /// out, pins of pods whose cgroup is gone. Called every ten seconds or so. Says which pods, by uid, were turned away since the last
    /// time, having as many learned addresses or names as one may have.
    fn collect(&mut self) -> Result<BTreeSet<String>, DatapathError>;

    /// Looks whether what outlives the agent is still there, and puts back what somebody has taken away. Pods get back what was in
    /// force for them, whatever is wanted by now; `cgroup_of` says where they are. Where that fails, they count as having nothing, or
    /// not all, in force. Called every other second.
    fn mend(&mut self, cgroup_of: &dyn Fn(&str) -> Option<PathBuf>) -> Result<Mended, DatapathError> {
        let _ = cgroup_of;
        Ok(Mended::default())
    }

    /// The pods whose other ends these interfaces of the node are, by uid.
    fn pods_at(&self, interfaces: &BTreeSet<u32>) -> BTreeSet<String> {
        let _ = interfaces;
        BTreeSet::new()
    }

    /// What [`Datapath::mend`] does about backstops, for these pods and now.
    fn mend_backstops(&mut self, uids: &BTreeSet<String>) -> Mended {
        let _ = uids;
        Mended::default()
    }

    /// What the programs counted since they were loaded.
    fn counters(&self) -> Result<Counters, DatapathError>;

    /// The stream of events. The first call takes it; later calls get `None`.
    fn events(&mut self) -> Option<Box<dyn EventSource>>;
}

/// What was put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Uids of pods for which nothing was in force, or not all.
    pub pods: BTreeSet<String>,
    /// Those for which that is still so, by uid, and why.
    pub failed: BTreeMap<String, String>,
    /// Uids of pods whose backstop was gone: [`Datapath::cover`] puts it back.
    pub backstops: BTreeSet<String>,
    /// The same of those that something else came before, by uid, and what.
    pub overtaken: BTreeMap<String, String>,
    /// How many maps were pinned no more.
    pub maps: usize,
}

/// What was done about a pod's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Connections that were reset.
    pub reset: usize,
    /// Connections to resolvers that nobody could read, as from before the first policy or from another version's time: they were reset, too.
    pub unread: usize,
    /// Connections from before the first policy that came in, and are judged as if the pod had opened them,
    /// because the map `INHERITED` is full.
    pub lost: usize,
}

/// The programs' ring buffer. Nobody is woken when events wait in it: it has to be read now and then.
pub trait EventSource: Send {
    /// The next event, or `None` when all have been read. Never blocks.
    fn next(&mut self) -> Option<Event>;

    /// The names by which a subject learned an address, those too whose TTL has run out meanwhile.
    fn names(&self, subject: u32, address: Address) -> Vec<Learned>;
}
