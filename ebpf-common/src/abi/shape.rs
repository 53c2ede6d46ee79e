//! Bandwidth limits.

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
