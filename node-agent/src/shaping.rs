//! Caps of pods: what the agent wants the kernel to hold them to.

use std::fmt;

use l7egg_ebpf_common::abi;
use l7egg_ebpf_common::shape::{SPARSE_SHARE, cost_ns};

/// Bytes of a full Ethernet frame, without its checksum.
const FRAME: u64 = 1514;
const MS: u64 = 1_000_000;

/// One limit, and who shares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cap {
    /// Who shares it, on this node.
    pub name: CapName,
    /// The rate, in bits per second.
    pub bits_per_second: u64,
    /// What may be sent at once after a silence, in bytes; not said: little enough not to be felt.
    pub burst: Option<u64>,
}

/// Who shares a cap. Its text is the key by which the kernel's side finds the cap again after a restart of the
/// agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapName {
    /// One pod.
    Pod {
        /// Its uid.
        uid: String,
    },
    /// All pods of an Egg on this node.
    Egg {
        /// Uid of the Egg.
        uid: String,
    },
    /// All pods of one namespace that an Egg selects, on this node.
    Namespace {
        /// Uid of the Egg.
        egg: String,
        /// The namespace.
        namespace: String,
    },
}

impl fmt::Display for CapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CapName::Pod { uid } => write!(f, "pod/{uid}"),
            CapName::Egg { uid } => write!(f, "egg/{uid}"),
            CapName::Namespace { egg, namespace } => write!(f, "namespace/{namespace}/{egg}"),
        }
    }
}

impl Cap {
    /// What the kernel is told.
    ///
    /// - Burst: 4 ms of the rate, at least two frames, so that a sender whose queue ran empty for a moment
    ///   does not lose by it.
    /// - Horizon: what 1,024 frames take, between half a second and eight.
    /// - Marks: from what 16 frames take on, between 5 and 500 ms.
    #[must_use]
    pub fn in_kernel(&self) -> abi::Cap {
        let bytes_per_second = (self.bits_per_second / 8).max(1);
        let time = |bytes: u64| u64::from(u32::MAX).min(bytes) as u32;
        let time = |bytes: u64| cost_ns(time(bytes), bytes_per_second);
        let frames = |count: u64| time(count * FRAME);
        abi::Cap {
            bytes_per_second,
            burst_ns: self.burst.map_or_else(|| frames(2).max(4 * MS), time),
            horizon_ns: frames(1024).clamp(500 * MS, 8_000 * MS),
            mark_ns: frames(16).clamp(5 * MS, 500 * MS),
            sparse_burst_ns: frames(2) * SPARSE_SHARE,
        }
    }

    /// Segments of one packet that take no longer than a millisecond: a packet is sent whole, and others wait
    /// for it.
    #[must_use]
    pub fn segments(&self) -> u32 {
        (self.bits_per_second / 8 / 1000 / FRAME).clamp(1, 65_535) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cap(bits_per_second: u64) -> Cap {
        Cap { name: CapName::Pod { uid: "u".into() }, bits_per_second, burst: None }
    }

    #[test]
    fn times_follow_the_rate() {
        let slow = cap(1_000_000).in_kernel();
        assert_eq!(slow.bytes_per_second, 125_000);
        assert_eq!(slow.burst_ns, 24_224_000);
        assert_eq!(slow.horizon_ns, 8_000 * MS);
        let fast = cap(1_000_000_000).in_kernel();
        assert_eq!((fast.burst_ns, fast.horizon_ns, fast.mark_ns), (4 * MS, 500 * MS, 5 * MS));
        let said = Cap { burst: Some(65_536), ..cap(20_000_000) }.in_kernel();
        assert_eq!(said.burst_ns, 26_214_400);
    }

    #[test]
    fn a_packet_takes_no_longer_than_a_millisecond() {
        let segments = [64_000, 10_000_000, 100_000_000, 1_000_000_000].map(|rate| cap(rate).segments());
        assert_eq!(segments, [1, 1, 8, 82]);
    }
}
