//! The maps. The agent pins each under its name; the layouts are in `l7egg_ebpf_common::abi`.

// Storage by attachment, not `CgrpStorage`: that needs Linux 6.2 and finds the socket's cgroup, not ours.
#![allow(deprecated)]

use core::sync::atomic::AtomicU64;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, CgroupStorage, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use l7egg_ebpf_common::abi::{
    AddressKey, Asked, Attached, CIDRS_MAX, COUNTERS, CidrData, Config, Connection, Container, FLOWS_MAX,
    Flow, FlowKey, FragmentKey, LEARNED_MAX, Learned, LearnedKey, Masks, NAMES_MAX, Name, NameMasks,
    NameTail, NameVerdictKey, Network, PATTERNS_MAX, PODS_CGROUPS, PORTS_MAX, PatternKey, PodsCgroup,
    PolicySettings, PortData, ResolverKey, STATES_MAX, SUBJECTS_MAX, Subject, SubjectState,
};
use l7egg_ebpf_common::automaton::State;
use l7egg_ebpf_common::matcher::Matcher;
use l7egg_ebpf_common::queries::QueryBucket;
use l7egg_ebpf_common::share::Cells;

use crate::scratch::Scratch;
use crate::stream::Conversation;

#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

// Counts changes of SUBJECTS, so that an open connection need not ask it. 0 until the agent has begun.
#[map]
pub static GENERATION: Array<AtomicU64> = Array::with_max_entries(1, 0);

#[map]
pub static SUBJECT: CgroupStorage<Subject> = CgroupStorage::new();

#[map]
pub static SUBJECTS: Array<SubjectState> = Array::with_max_entries(SUBJECTS_MAX, 0);

// By the id of its cgroup. Only those of divided pods.
#[map]
pub static CONTAINERS: HashMap<u64, Container> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

// User space's own: the digest of every policy, and under id 0 the last id that was given.
#[map]
pub static POLICIES: HashMap<u32, [u8; 32]> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

// Only policies that say something are in it.
#[map]
pub static SETTINGS: HashMap<u32, PolicySettings> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
pub static PATTERNS: HashMap<PatternKey, NameMasks> =
    HashMap::with_max_entries(PATTERNS_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static MATCHERS: HashMap<u32, Matcher> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
pub static STATES: Array<State> = Array::with_max_entries(STATES_MAX, 0);

#[map]
pub static CIDRS: LpmTrie<CidrData, Masks> = LpmTrie::with_max_entries(CIDRS_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static PORTS: LpmTrie<PortData, u64> = LpmTrie::with_max_entries(PORTS_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static RESOLVERS: HashMap<ResolverKey, u8> = HashMap::with_max_entries(8_192, BPF_F_NO_PREALLOC);

/// Entries of `QUERIES`, a power of two.
pub const QUERY_BUCKETS: u32 = 16_384;
#[map]
pub static QUERIES: Array<QueryBucket> = Array::with_max_entries(QUERY_BUCKETS, 0);

/// Entries of `OTHER_QUERIES`, a power of two.
pub const OTHER_QUERY_BUCKETS: u32 = 4_096;
#[map]
pub static OTHER_QUERIES: Array<QueryBucket> = Array::with_max_entries(OTHER_QUERY_BUCKETS, 0);

// Preallocated, at 26 and 20 MB: else the kernel gets memory for some of their entries while an answer waits, and has none to give
// where many come at once.
#[map]
pub static LEARNED: HashMap<LearnedKey, Learned> = HashMap::with_max_entries(LEARNED_MAX, 0);

#[map]
pub static NAMES: HashMap<u64, Name> = HashMap::with_max_entries(NAMES_MAX, 0);

#[map]
pub static NAME_TAILS: HashMap<u64, NameTail> = HashMap::with_max_entries(NAMES_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static SHARES: Array<Cells> = Array::with_max_entries(SUBJECTS_MAX, 0);

// A cache over NAMES and PATTERNS.
#[map]
pub static NAME_VERDICTS: LruHashMap<NameVerdictKey, Masks> = LruHashMap::with_max_entries(65_536, 0);

#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(FLOWS_MAX, 0);

#[btf_map]
pub static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

// By socket cookie. The agent writes it when it has attached the programs.
#[map]
pub static INHERITED: HashMap<u64, Connection> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
// Of the packet for a listener that this CPU works on: 1 if it did not come in by the pod's own network, and above that bit
// the subject.
#[map]
pub static ARRIVING: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

#[btf_map]
pub static ASKED: SkStorage<Asked> = SkStorage::new();

#[btf_map]
pub static DNS_STREAMS: SkStorage<Conversation> = SkStorage::new();

// Sockets of connections that ended with a query that was refused.
#[btf_map]
pub static DNS_ENDED: SkStorage<u8> = SkStorage::new();

// Connections to name servers that are read, by the pod's subject id.
#[map]
pub static CONVERSATIONS: Array<AtomicU64> = Array::with_max_entries(SUBJECTS_MAX, 0);

#[map]
pub static PODS: Array<PodsCgroup> = Array::with_max_entries(PODS_CGROUPS, 0);

#[map]
pub static NETWORKS: Array<Network> = Array::with_max_entries(SUBJECTS_MAX, 0);

// Cookie of the network namespace in which a socket was made.
#[btf_map]
pub static NETNS: SkStorage<u64> = SkStorage::new();

#[map]
pub static ATTACHED: HashMap<u32, Attached> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);

#[map]
pub static ADDRESSES: HashMap<AddressKey, u8> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

// What came in, so that replies without a socket may leave: a flood makes room for itself, and costs resets and
// echo replies at worst. The value is the time.
#[map]
pub static INBOUND: LruHashMap<FlowKey, u64> = LruHashMap::with_max_entries(65_536, 0);

// Connections that have ended, and when: what the kernel still has to say of them has no socket.
#[map]
pub static ENDED: LruHashMap<FlowKey, u64> = LruHashMap::with_max_entries(16_384, 0);

#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, u64> = LruHashMap::with_max_entries(4_096, 0);

#[map]
pub static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

// The agent makes it as large as the machine has CPUs, times `SCRATCH_PER_CPU`.
#[map]
pub static SCRATCH: Array<Scratch> = Array::with_max_entries(8, 0);

// By the ids of their cgroups: the pods that the agent has decided about. The value is 1; that of `HOST_NETNS` is the cookie of
// the node's network namespace.
#[map]
pub static ADMITTED: HashMap<u64, u64> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

// Sockets of a pod that was not admitted when it made them.
#[btf_map]
pub static WAITING: SkStorage<u8> = SkStorage::new();
