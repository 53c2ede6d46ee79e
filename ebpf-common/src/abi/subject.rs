//! Pods, and their networks.

use super::{Address, LearnedKey};

/// Value of the cgroup storage `SUBJECT`: the pod that the cgroup is of.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Index into `SUBJECTS`. 0 where none has been written yet.
    pub id: u32,
    /// Zero.
    pub reserved: u32,
}

/// Map `SUBJECTS`, by subject id: what is enforced for a pod now. Eight bytes, written at once.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubjectState {
    /// Policy id, the epoch. 0: nothing is known of the pod yet, and nothing may leave it.
    pub policy: u32,
    /// The policy's [`crate::judge::Enforcement`], [`SETTINGS`] and [`REFUSES`], and [`CLASSIFIED`], [`SOCKET_BALANCER`],
    /// [`HOST_NETWORK`] and [`NODE`].
    pub flags: u32,
}

/// Flag of [`SubjectState`]: its connections from before the programs were attached are in `INHERITED`. Until then
/// one that nothing is known of counts as accepted if somebody listens on its port.
pub const CLASSIFIED: u32 = 1 << 8;
/// Flag of [`SubjectState`]: programs of others run for the pod's connects and sends, and may change destinations.
pub const SOCKET_BALANCER: u32 = 1 << 9;
/// Flag of [`SubjectState`]: the pod is in the host's network, so its packets are seen behind the host's NAT.
pub const HOST_NETWORK: u32 = 1 << 10;
/// Flag of the [`SubjectState`] of a pod: each of its containers is a subject of its own, or free (`CONTAINERS`). The
/// policy is of what belongs to none of them.
pub const DIVIDED: u32 = 1 << 11;
/// Where the flags of a divided pod have the level of its containers' cgroups, counted from the root of the tree; 0 where
/// the agent does not see the root.
pub const LEVEL_SHIFT: u32 = 24;
/// Cgroups of containers are not further down than this.
pub const LEVELS_MAX: u32 = 32;
/// Flag of [`SubjectState`]: it is the node itself, whose cgroup has all others below it. What is in a pod (map `PODS`) is
/// not meant.
pub const NODE: u32 = 1 << 12;

/// Flag of [`SubjectState`]: the policy is in map `SETTINGS`. Most are not, and need not be looked for.
pub const SETTINGS: u32 = 1 << 13;
/// Flag of [`SubjectState`]: queries for names that no Allow rule matches are refused; the response code is in `SETTINGS`.
pub const REFUSES: u32 = 1 << 14;

/// Flag of [`SubjectState`]: the pod was free until a short time ago, so a datagram that looks like the first of somebody else's may be an
/// answer to what the pod sent then ([`looks_like_an_answer`]).
pub const WAS_FREE: u32 = 1 << 15;

/// Where the ports begin that Linux chooses for who binds none (`net.ipv4.ip_local_port_range`, its default).
const CHOSEN_PORTS: u16 = 32_768;

/// Whether a datagram goes from a port that somebody listens on to one that the kernel has chosen, as answers do.
#[inline(always)]
#[must_use]
pub fn looks_like_an_answer(from: u16, to: u16) -> bool {
    from < CHOSEN_PORTS && to >= CHOSEN_PORTS
}

/// Cgroups of which each holds pods and nothing else (`kubepods`): those of one node. A machine has one for each kubelet, and
/// what ended kubelets left behind; programs look at as many as there are.
pub const PODS_CGROUPS: u32 = 16;

/// Value of `PODS`: a cgroup that holds pods. Unused entries are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodsCgroup {
    /// Its id.
    pub id: u64,
    /// How many cgroups are above it; at least 1.
    pub level: u32,
    /// Zero.
    pub reserved: u32,
}

/// Key of `ADMITTED`, which is no cgroup's id: its value is the cookie of the node's network namespace.
pub const HOST_NETNS: u64 = u64::MAX;

impl SubjectState {
    /// From the eight bytes as a number of this machine.
    #[inline(always)]
    #[must_use]
    pub fn from_word(word: u64) -> Self {
        let bytes = word.to_ne_bytes();
        Self {
            policy: u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            flags: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }
}

/// Value of `CONTAINERS`, by the id of its cgroup: a container of a divided pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container {
    /// The subject that it is, or 0 if no Egg is for it: it is free then.
    pub subject: u32,
    /// Its pod.
    pub pod: u32,
    /// Its name in the pod's spec, zero behind it: user space's own.
    pub name: [u8; 64],
}

/// Interfaces of one pod that are told apart; packets by others open nothing and teach nothing.
pub const POD_INTERFACES: usize = 8;

/// Map `NETWORKS`, by subject id: the pod's own network. What arrives elsewhere, in a namespace that the pod has
/// made for itself or by a device that it has added, is the pod's own word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Cookie of its network namespace (`SO_NETNS_COOKIE`), or 0 where it is not known yet: everything counts then.
    pub netns: u64,
    /// Indices of its interfaces there, then zeroes.
    pub interfaces: [u32; POD_INTERFACES],
    /// Bit `i`: interface `i` has the backstop on the host's side.
    pub covered: u32,
    /// [`ANY_INTERFACE`] and [`UNFINISHED`].
    pub flags: u32,
}

/// [`Network`] as versions of the layout up to 8 have it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NarrowNetwork {
    /// As there, and so are all others.
    pub netns: u64,
    /// These are fewer.
    pub interfaces: [u32; 4],
    /// As there.
    pub covered: u32,
    /// As there.
    pub flags: u32,
}

impl From<NarrowNetwork> for Network {
    fn from(NarrowNetwork { netns, interfaces: known, covered, flags }: NarrowNetwork) -> Self {
        let mut interfaces = [0; POD_INTERFACES];
        interfaces.iter_mut().zip(known).for_each(|(slot, index)| *slot = index);
        Self { netns, interfaces, covered, flags }
    }
}

/// Flag of [`Network`], user space's own: not all of the pod's addresses are in `ADDRESSES` yet.
pub const UNFINISHED: u32 = 1 << 1;
/// Flag of [`Network`]: the namespace is the node's own, so each of its interfaces counts, and `interfaces` is empty.
pub const ANY_INTERFACE: u32 = 1;

/// Value of `ATTACHED`, by the index of an interface in the host's network namespace: whose other end it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// The pod.
    pub subject: u32,
    /// Zero.
    pub reserved: u32,
}

/// Key of `ADDRESSES`: an address of a pod's own. Packets by its interface come from no other.
pub type AddressKey = LearnedKey;

/// Key of `FRAGMENTS`: a packet that leaves a pod in pieces, of which the first has passed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// The pod.
    pub subject: u32,
    /// Its identification (RFC 791 §3.1, RFC 8200 §4.5).
    pub ident: u32,
    /// Where it goes.
    pub destination: Address,
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// How long later fragments may follow the first one, in ns (`net.ipv4.ipfrag_time`: so long the other side waits).
pub const FRAGMENT_NS: u64 = 30_000_000_000;
