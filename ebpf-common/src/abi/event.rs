//! What user space is told.

use super::Address;

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
    /// Addresses and names not learned because their pod has as many as one may have.
    ShareReached,
}

/// Number of [`Counter`]s.
pub const COUNTERS: u32 = Counter::ShareReached as u32 + 1;

/// Kinds of [`Event`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A new connection or flow was denied.
    Denied = 1,
    /// An address was learned.
    Learned = 2,
    /// An address could not be learned: `LEARNED` is full, or the pod has its share of it.
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
