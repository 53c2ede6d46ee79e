//! Keys and values of every map, byte for byte. All are `repr(C)` without padding, so that equal values are
//! equal bytes; addresses are 16 bytes in network order, IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
//!
//! Words used here and everywhere: a *subject* is a pod on this node; a *policy* is what its Eggs together
//! mean, and its id is the *epoch*: whatever changes for a pod gives it a new policy id, and no id is used
//! twice. A *port group* is one distinct list of ports, and one bit of a `u64`.

/// Version of this layout. Pins live below a directory of this number; a change here is a new number.
pub const ABI_VERSION: u32 = 3;

/// Entries of [`SubjectState`]: subject ids are below this. 0 is no pod: programs under test run for it.
pub const SUBJECTS_MAX: u32 = 65_536;
/// Working buffers of the programs for each CPU: process, softirq, and two that were preempted. The agent
/// makes the map `SCRATCH` as large.
pub const SCRATCH_PER_CPU: u32 = 4;
/// Port groups of one policy.
pub const PORT_GROUPS_MAX: usize = 64;
/// Names that one address can have been learned by at the same time.
pub const LEARNED_NAMES: usize = 8;
/// Longest DNS name in wire form without the root label (RFC 1035 §2.3.4 counts 255 with it).
pub const NAME_MAX: usize = 254;

/// Port of DNS (RFC 1035 §4.2).
pub const DNS_PORT: u16 = 53;

/// IP protocol numbers that rules can name. ICMPv6 (58) is normalised to ICMP.
pub mod protocol {
    /// Any protocol: in a [`super::PortData`] of prefix length 0.
    pub const ANY: u8 = 0;
    /// ICMP, and ICMPv6 as well.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6 as it is in packets.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// An address in network order, IPv4 mapped.
pub type Address = [u8; 16];

/// Port groups that a destination is allowed and denied on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Masks {
    /// Groups of Allow rules.
    pub allow: u64,
    /// Groups of Deny rules.
    pub deny: u64,
}

impl Masks {
    /// Nothing allowed, nothing denied.
    pub const NONE: Self = Self { allow: 0, deny: 0 };

    /// The groups of both.
    #[inline(always)]
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { allow: self.allow | other.allow, deny: self.deny | other.deny }
    }

    /// Whether no rule is in it.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.allow | self.deny == 0
    }
}

/// What a policy says about one name, in the table that is asked for every suffix of a name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameMasks {
    /// Rules with the name itself.
    pub exact: Masks,
    /// Rules with `*.` before the name: one label more.
    pub one_label: Masks,
    /// Rules with `**.` before the name: one or more labels more.
    pub any_labels: Masks,
    /// 1 if the name is one of the pod's search domains, and names can be refused; else 0.
    pub search: u64,
}

/// Map `CONFIG`, one entry: node-wide settings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Secret multipliers of the name hash, see [`crate::name::NameHash`].
    pub hash_key: [u32; 2],
    /// An answer is believed at least this long, in ns, whatever its TTL.
    pub min_ttl_ns: u64,
    /// An answer is believed at most this long, in ns, whatever its TTL.
    pub max_ttl_ns: u64,
    /// And so long after that, in ns.
    pub ttl_grace_ns: u64,
}

/// Map `SETTINGS`, by policy id: what its Eggs say about DNS itself. A time that is [`UNSET`] is that of
/// [`Config`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// As in [`Config`].
    pub min_ttl_ns: u64,
    /// As in [`Config`].
    pub max_ttl_ns: u64,
    /// As in [`Config`].
    pub ttl_grace_ns: u64,
    /// The response code (RFC 1035 §4.1.1) for queries for names that no Allow rule matches, which do not leave; or 0.
    pub refusal: u32,
    /// Zero.
    pub reserved: u32,
}

/// A time of [`PolicySettings`] that no Egg sets.
pub const UNSET: u64 = u64::MAX;

impl PolicySettings {
    /// What a policy that says nothing has.
    pub const NONE: Self =
        Self { min_ttl_ns: UNSET, max_ttl_ns: UNSET, ttl_grace_ns: UNSET, refusal: 0, reserved: 0 };
}

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
    /// The policy's [`crate::judge::Enforcement`], [`CLASSIFIED`] and [`SOCKET_BALANCER`].
    pub flags: u32,
}

/// Flag of [`SubjectState`]: its connections from before the programs were attached are in `INHERITED`. Until then
/// one that nothing is known of counts as accepted if somebody listens on its port.
pub const CLASSIFIED: u32 = 1 << 8;
/// Flag of [`SubjectState`]: programs of others run for the pod's connects and sends, and may change destinations.
pub const SOCKET_BALANCER: u32 = 1 << 9;

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

/// Key of `PATTERNS`: a name of the policy, by its hash. The value is [`NameMasks`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PatternKey {
    /// Hash of the name in wire form.
    pub name: u64,
    /// Policy id.
    pub policy: u32,
    /// Zero.
    pub reserved: u32,
}

/// Data of the longest-prefix trie `CIDRS`; its prefix length is 32 + that of the network. The value is
/// [`Masks`], complete: no shorter prefix has to be asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CidrData {
    /// Policy id, big endian so that all of it is in the prefix.
    pub policy: [u8; 4],
    /// Network address.
    pub address: Address,
}

/// Data of the longest-prefix trie `PORTS`; its prefix length is 32, 40 or 41..=56. The value is the `u64` of
/// port groups that hold the port, complete.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortData {
    /// Policy id, big endian.
    pub policy: [u8; 4],
    /// IP protocol.
    pub protocol: u8,
    /// Port, big endian.
    pub port: [u8; 2],
    /// Zero, and beyond every prefix.
    pub reserved: u8,
}

/// Key of `RESOLVERS`: a DNS server that pods of the policy may ask and whose answers are believed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResolverKey {
    /// Policy id.
    pub policy: u32,
    /// Address of the server; its port is [`DNS_PORT`].
    pub address: Address,
}

/// Key of `QUERIES` and `OTHER_QUERIES`: one DNS query under way. The value is the hash of its qname. Those
/// that a rule of the subject's policy matches are in `QUERIES`; of the answers to the others, only the
/// addresses of an alias that a rule matches are learned. Two maps, so that a pod that asks for all the names
/// in the world makes nobody's matched query forgotten.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueryKey {
    /// Who asked.
    pub subject: u32,
    /// UDP port that asked.
    pub local_port: u16,
    /// ID of the message (RFC 1035 §4.1.1).
    pub id: u16,
    /// Who was asked.
    pub resolver: Address,
}

/// Key of `LEARNED`: an address that a pod was given for a name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LearnedKey {
    /// Who asked.
    pub subject: u32,
    /// The address.
    pub address: Address,
}

/// One name of a learned address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LearnedName {
    /// Hash of the name, 0 where the slot is free.
    pub name: u64,
    /// Until when it is believed, in ns of `bpf_ktime_get_boot_ns`.
    pub expires_ns: u64,
}

/// Value of `LEARNED`: the names by which the pod learned the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The names, in no order.
    pub names: [LearnedName; LEARNED_NAMES],
}

/// Value of `NAMES`, by the hash of the name: the name itself, so that a later policy can judge it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// When it was last asked for, `bpf_ktime_get_boot_ns`.
    pub asked_ns: u64,
    /// Length of `wire` in use, at most [`NAME_MAX`].
    pub len: u32,
    /// Zero.
    pub reserved: u32,
    /// Wire form, lower case, without the root label; zero behind it.
    pub wire: [u8; 256],
}

/// Key of `NAME_VERDICTS`, a cache: what a policy says about a whole name. The value is [`Masks`].
pub type NameVerdictKey = PatternKey;

/// Which side opened a flow or connection.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The pod did, and its policy allowed it.
    Egress = 1,
    /// The other side did.
    Ingress = 2,
    /// Unknown: what leaves is judged. Of a socket that was told to connect, before it has sent anything, and of a
    /// connection that was accepted from the pod itself.
    Unknown = 3,
}

/// Key of `FLOWS`: a UDP or SCTP flow of a pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The pod.
    pub subject: u32,
    /// The pod's port.
    pub local_port: u16,
    /// The other side's port.
    pub remote_port: u16,
    /// The other side.
    pub remote: Address,
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Value of `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// When its last packet passed, `bpf_ktime_get_boot_ns`.
    pub seen_ns: u64,
    /// Hash of the name that it was allowed by, or 0.
    pub name: u64,
    /// Policy id that allowed it.
    pub policy: u32,
    /// A [`Direction`].
    pub direction: u32,
}

/// Interfaces of one pod that are told apart; packets by others open nothing and teach nothing.
pub const POD_INTERFACES: usize = 4;

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
    /// Zero.
    pub reserved: u32,
}

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

/// Value of the socket storage `CONNECTIONS`: the verdict on a TCP connection. And value of the map
/// `INHERITED`, by socket cookie: connections from before the programs were attached, as far as their packets
/// cannot say what they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Hash of the name that it was allowed by, or 0.
    pub name: u64,
    /// The other side. A socket that was disconnected and connected again has another one.
    pub remote: Address,
    /// The other side's port.
    pub remote_port: u16,
    /// The pod's port.
    pub local_port: u16,
    /// Policy id that allowed it.
    pub policy: u32,
    /// A [`Direction`].
    pub direction: u32,
    /// The pod.
    pub subject: u32,
    /// The generation (map `GENERATION`, which counts changes of any pod's state) in which that was so: as long as it
    /// lasts nothing has to be asked again. 0 where every packet is to be looked at.
    pub generation: u64,
    /// The pod's address, once the backstop has seen that it is one of the pod's own; zeroes before.
    pub own: Address,
}

/// Value of the socket storage `ASKED`: what the program that uses the socket last asked for, see
/// [`SOCKET_BALANCER`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The address.
    pub address: Address,
    /// The port.
    pub port: u16,
    /// An [`AskedBy`].
    pub by: u16,
    /// 1 if the socket was ever connected to what may not be reached.
    pub distrusted: u32,
}

/// How a program asks for a destination.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// connect(2).
    Connect = 1,
    /// sendmsg(2) with an address.
    Send = 2,
}

/// How long a UDP or SCTP flow without packets is remembered, in ns (180 s, as Linux conntrack's
/// `nf_conntrack_udp_timeout_stream` was when it was chosen).
pub const FLOW_IDLE_NS: u64 = 180_000_000_000;

/// Counters of the per-CPU array `COUNTERS`, by index.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Packets of new connections or flows that a rule allowed.
    Allowed,
    /// Packets and connects that no rule allowed, or that a rule denied.
    Denied,
    /// Packets that were dropped because they could not be read.
    Malformed,
    /// Queries that a rule matched, and that were noted.
    QueriesNoted,
    /// Queries that could not be read and so were not noted.
    QueriesUnreadable,
    /// Addresses learned or renewed.
    AddressesLearned,
    /// Addresses not learned because `LEARNED` is full.
    LearnedFull,
    /// Answers to noted queries that could not be read to their end.
    AnswersUnreadable,
    /// Answers that fit no noted query.
    AnswersUnasked,
    /// Events lost because the ring buffer is full.
    EventsLost,
    /// Packets dropped because every scratch buffer was in use.
    ScratchBusy,
    /// Packets of pods whose policy has not arrived yet.
    Unconfigured,
    /// Queries refused because no Allow rule matches their name.
    QueriesRefused,
    /// Answers to matched queries that were dropped because they could not be read.
    AnswersDropped,
    /// Packets of new connections or flows, connects and unreadable packets that passed only because an Egg is
    /// in mode Audit.
    AuditDenied,
    /// Packets that left a pod in somebody else's name.
    Spoofed,
}

/// Number of [`Counter`]s.
pub const COUNTERS: u32 = Counter::Spoofed as u32 + 1;

/// Kinds of [`Event`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A new connection or flow was denied.
    Denied = 1,
    /// An address was learned.
    Learned = 2,
    /// An address could not be learned: `LEARNED` is full.
    LearnedFull = 3,
    /// A new connection or flow would have been denied, were every Egg enforced.
    AuditDenied = 4,
}

/// An entry of the ring buffer `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `bpf_ktime_get_boot_ns`.
    pub at_ns: u64,
    /// Hash of the name, where one is known, or 0.
    pub name: u64,
    /// The address it is about.
    pub remote: Address,
    /// The pod.
    pub subject: u32,
    /// An [`EventKind`].
    pub kind: u32,
    /// Policy id in force.
    pub policy: u32,
    /// The other side's port.
    pub remote_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Process id in the node's pid namespace, where a program asked for it by a call; 0 for a packet.
    pub process: u32,
    /// The pod's port, 0 where it is not known.
    pub local_port: u16,
    /// Zero.
    pub reserved2: u16,
    /// Name of the thread that made the call (`comm`, zero behind it); zero for a packet.
    pub comm: [u8; 16],
}

/// Caps that one pod can be under: its own, and those that it shares.
pub const CAPS_PER_POD: usize = 4;
/// Entries of `SHAPED_PODS`: slots are below this, and 0 is no pod's.
pub const SHAPED_PODS_MAX: u32 = 1024;
/// Entries of `CAPS`, `CAP_CLOCKS` and `CAP_COUNTS`: ids are below this, and 0 is no cap.
pub const CAPS_MAX: u32 = 4096;

/// Map `SHAPED_PODS`, by slot: the caps of a pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShapedPod {
    /// Ids of the caps; the first 0 ends them.
    pub caps: [u32; CAPS_PER_POD],
}

/// Map `CAPS`, by cap id: a limit, with what the agent derived from its rate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cap {
    /// The rate.
    pub bytes_per_second: u64,
    /// What may be sent at once after a silence, as time at the rate.
    pub burst_ns: u64,
    /// A packet that would wait longer is dropped.
    pub horizon_ns: u64,
    /// A packet that waits longer is marked, if its transport knows ECN.
    pub mark_ns: u64,
    /// What a flow may send at once and still be sparse, as time at the share of a sparse flow.
    pub sparse_burst_ns: u64,
}

/// Map `CAP_CLOCKS`, by cap id, of CLOCK_MONOTONIC. Only the programs write it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapClock {
    /// When everything that was given a time will have left.
    pub all_ns: u64,
    /// Credit of sparse flows: when it will have come back, less all of it.
    pub sparse_ns: u64,
    /// The rate by which the times were given.
    pub bytes_per_second: u64,
}

/// Key of `FLOW_CLOCKS`: a flow of a shaped pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowClockKey {
    /// Slot of the pod.
    pub slot: u32,
    /// Hash of the flow: `bpf_get_hash_recalc`.
    pub hash: u32,
}

/// Value of `FLOW_CLOCKS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowClock {
    /// When the flow will have sent all it did, if it kept to the share of a sparse flow.
    pub virtual_ns: u64,
    /// When its last packet leaves.
    pub departure_ns: u64,
}

/// Key of `CAP_IDS`, in which the agent keeps which cap has which id: what the cap is for, in words, zero
/// behind them.
pub type CapName = [u8; 128];

/// Key of `SAVED_INTERFACES`: an interface of a shaped pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SavedInterfaceKey {
    /// Slot of the pod.
    pub slot: u32,
    /// Index of the interface in the pod's namespace.
    pub interface: u32,
    /// Inode number of that namespace.
    pub netns: u64,
}

/// Value of `SAVED_INTERFACES`, in which the agent keeps what it has to put back: an interface as it was.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedInterface {
    /// `gso_max_segs`.
    pub gso_max_segs: u32,
    /// Handle of the root qdisc; 0 for one that the kernel chose.
    pub qdisc_handle: u32,
    /// Length of `qdisc_options` in use.
    pub qdisc_options_len: u32,
    /// Zero.
    pub reserved: u32,
    /// Kind of the root qdisc, zero behind it.
    pub qdisc_kind: [u8; 16],
    /// Its options, as rtnetlink(7) has them.
    pub qdisc_options: [u8; 464],
}

/// Per-CPU maps `SHAPED_COUNTS`, by slot, and `CAP_COUNTS`, by cap id: what happened to packets. Of a cap,
/// delays, marks and drops are those that it decided.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShapeCounts {
    /// Bytes on the wire that were given a time.
    pub bytes: u64,
    /// Packets that were given a time.
    pub packets: u64,
    /// Those among them that had to wait.
    pub delayed: u64,
    /// How long they had to, together, in ns.
    pub delay_ns: u64,
    /// Packets marked (ECN).
    pub marked: u64,
    /// Packets dropped, because they would have had to wait for longer than the horizon.
    pub dropped: u64,
}

/// IPv4 as the rest of the ABI has it.
#[inline(always)]
pub fn mapped(v4: [u8; 4]) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// Whether the address is an IPv4 one, mapped.
#[inline(always)]
pub fn is_v4(address: &Address) -> bool {
    address[..12] == mapped([0; 4])[..12]
}

/// 127.0.0.0/8 and ::1.
#[inline(always)]
pub fn is_loopback(address: &Address) -> bool {
    if is_v4(address) { address[12] == 127 } else { address[..15] == [0; 15] && address[15] == 1 }
}

#[cfg(feature = "aya")]
mod pod {
    use super::*;
    use crate::automaton::{Extent, State};

    macro_rules! pod {
        ($($t:ident),*) => {
            // SAFETY: repr(C), plain data, no padding (see the test below), any bytes are valid.
            $(unsafe impl aya::Pod for $t {})*
        };
    }
    pod!(
        Masks,
        NameMasks,
        Config,
        PolicySettings,
        Subject,
        SubjectState,
        PatternKey,
        CidrData,
        PortData,
        ResolverKey
    );
    pod!(State, Extent);
    pod!(ShapedPod, Cap, CapClock, FlowClockKey, FlowClock, ShapeCounts);
    pod!(SavedInterfaceKey, SavedInterface);
    pod!(QueryKey, LearnedKey, Learned, Name, FlowKey, Flow, Connection, Event, Network, Attached);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_has_padding() {
        // Padding would make equal keys unequal: the kernel compares bytes.
        assert_eq!(size_of::<PatternKey>(), 16);
        assert_eq!(size_of::<CidrData>(), 20);
        assert_eq!(size_of::<PortData>(), 8);
        assert_eq!(size_of::<ResolverKey>(), 20);
        assert_eq!(size_of::<QueryKey>(), 24);
        assert_eq!(size_of::<LearnedKey>(), 20);
        assert_eq!(size_of::<Learned>(), 16 * LEARNED_NAMES);
        assert_eq!(size_of::<Name>(), 8 + 8 + 256);
        assert_eq!(size_of::<FlowKey>(), 28);
        assert_eq!(size_of::<Flow>(), 24);
        assert_eq!(size_of::<Connection>(), 64);
        assert_eq!(size_of::<FragmentKey>(), 28);
        assert_eq!(size_of::<Network>(), 32);
        assert_eq!(size_of::<Asked>(), 24);
        assert_eq!(size_of::<Event>(), 72);
        assert_eq!(size_of::<SubjectState>(), 8);
        assert_eq!(size_of::<Config>(), 32);
        assert_eq!(size_of::<PolicySettings>(), 32);
        assert_eq!(size_of::<NameMasks>(), 56);
        assert_eq!(size_of::<ShapedPod>(), 4 * CAPS_PER_POD);
        assert_eq!(size_of::<Cap>(), 40);
        assert_eq!(size_of::<CapClock>(), 24);
        assert_eq!(size_of::<FlowClockKey>(), 8);
        assert_eq!(size_of::<FlowClock>(), 16);
        assert_eq!(size_of::<ShapeCounts>(), 48);
        assert_eq!(size_of::<SavedInterfaceKey>(), 16);
        assert_eq!(size_of::<SavedInterface>(), 16 + 16 + 464);
        assert_eq!(size_of::<crate::automaton::State>(), 16 + 2 * crate::automaton::CLASSES);
    }
}
