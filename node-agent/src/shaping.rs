//! Caps of pods: what the agent wants the kernel to hold them to.

use std::fmt;

use l7egg_crds::{AssignedPod, ShapingScope};
use l7egg_ebpf_common::abi::{self, CAPS_PER_POD};
use l7egg_ebpf_common::shape::{SPARSE_SHARE, cost_ns};
use l7egg_policy::{Limit, rate};

use crate::assignment::Assignment;

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

/// The cap that an Egg puts on one of its pods, if any.
#[must_use]
pub fn cap_of(assignment: &Assignment, pod: &AssignedPod) -> Option<Cap> {
    let limit = Limit::of(&assignment.policy)?;
    let egg = || assignment.egg.uid.clone();
    let (name, namespace) = match limit.scope {
        ShapingScope::Pod => {
            let name = CapName::Pod { uid: pod.uid.clone() };
            return Some(Cap { name, bits_per_second: limit.bits_per_second, burst: limit.burst });
        }
        ShapingScope::Egg => (CapName::Egg { uid: egg() }, None),
        ShapingScope::Namespace => {
            let namespace = pod.namespace.clone();
            (CapName::Namespace { egg: egg(), namespace: namespace.clone() }, Some(namespace))
        }
    };
    let share = assignment.shares.iter().find(|share| share.namespace == namespace);
    let share = share.and_then(|share| u64::try_from(share.bits_per_second).ok());
    let bits_per_second = share.unwrap_or(limit.bits_per_second).clamp(1, limit.bits_per_second);
    Some(Cap { name, bits_per_second, burst: limit.burst })
}

/// The cap of the pod's annotation, if it has one; or what is wrong with it.
#[must_use]
pub fn cap_of_annotation(pod: &AssignedPod) -> Option<Result<Cap, String>> {
    let cap =
        |bits_per_second| Cap { name: CapName::Pod { uid: pod.uid.clone() }, bits_per_second, burst: None };
    Some(rate(pod.egress_bandwidth.as_ref()?).map(cap))
}

/// The caps of a pod that hold together: of those with one name the strictest, and the strictest of all first. More than
/// the kernel can nest are not needed to hold what the first ones do.
#[must_use]
pub fn nest(mut caps: Vec<Cap>) -> Vec<Cap> {
    caps.sort_by(|a, b| (a.bits_per_second, &a.name).cmp(&(b.bits_per_second, &b.name)));
    let mut nested: Vec<Cap> = Vec::new();
    for cap in caps {
        if nested.len() < CAPS_PER_POD && nested.iter().all(|known| known.name != cap.name) {
            nested.push(cap);
        }
    }
    nested
}

impl Cap {
    /// What the kernel is told.
    ///
    /// - Burst: 4 ms of the rate, at least a frame, so that a sender whose queue ran empty for a moment does
    ///   not lose by it.
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
            burst_ns: self.burst.map_or_else(|| frames(1).max(4 * MS), time),
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
        assert_eq!(slow.burst_ns, 12_112_000);
        assert_eq!(slow.horizon_ns, 8_000 * MS);
        let fast = cap(1_000_000_000).in_kernel();
        assert_eq!((fast.burst_ns, fast.horizon_ns, fast.mark_ns), (4 * MS, 500 * MS, 5 * MS));
        let said = Cap { burst: Some(65_536), ..cap(20_000_000) }.in_kernel();
        assert_eq!(said.burst_ns, 26_214_400);
    }

    #[test]
    fn of_several_caps_the_strictest_come_first() {
        let egg = |uid: &str, bits_per_second| Cap {
            name: CapName::Egg { uid: uid.into() },
            ..cap(bits_per_second)
        };
        let nested = nest(vec![cap(9_000_000), egg("a", 5_000_000), cap(2_000_000), egg("b", 7_000_000)]);
        assert_eq!(nested, [cap(2_000_000), egg("a", 5_000_000), egg("b", 7_000_000)]);
        let many = (0..9).map(|n| egg(&n.to_string(), 1_000_000 * (9 - n))).collect();
        assert_eq!(nest(many).last().unwrap().bits_per_second, 4_000_000);
    }

    #[test]
    fn a_packet_takes_no_longer_than_a_millisecond() {
        let segments = [64_000, 10_000_000, 100_000_000, 1_000_000_000].map(|rate| cap(rate).segments());
        assert_eq!(segments, [1, 1, 8, 82]);
    }
}
