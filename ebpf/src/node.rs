//! The node itself as a subject. Its programs sit above all others and run for every socket of the node: those of pods
//! are left alone, whether an Egg selects the pod or not.

use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id};
use l7egg_ebpf_common::abi::{PODS_CGROUPS, protocol};
use l7egg_ebpf_common::link::{Control, control};
use l7egg_ebpf_common::packet::{Packet, TCP_SYN};

use crate::maps::PODS;
use crate::skb::Skb;
use crate::subject::Current;

/// Whether a packet is one of a pod's, and the subject is the node.
#[inline(always)]
pub fn leaves_alone(subject: &Current, skb: Skb) -> bool {
    subject.is_node() && is_of_pod(skb) == 1
}

/// The same of a socket that the running program makes or uses.
#[inline(always)]
pub fn leaves_alone_running(subject: &Current) -> bool {
    subject.is_node() && runs_in_pod() == 1
}

crate::global! {
    fn is_of_pod(skb: Skb) -> i32 {
        // SAFETY: the context is valid.
        is_below(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb.as_ptr(), level) })
    }
}

#[inline(never)]
fn runs_in_pod() -> i32 {
    // SAFETY: the helper takes any number.
    is_below(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

#[inline(always)]
fn is_below(ancestor: impl Fn(i32) -> u64) -> i32 {
    let mut index = 0;
    while index < PODS_CGROUPS {
        let Some(pods) = PODS.get(index) else { return 0 };
        // The root is level 0, and holds more than pods.
        if pods.level == 0 {
            return 0;
        }
        if ancestor(pods.level as i32) == pods.id {
            return 1;
        }
        index += 1;
    }
    0
}

/// Whether the kernel says it by itself: resets and acknowledgements for nobody, answers to pings, errors, neighbours.
/// They come from raw sockets of its own, which are in the root cgroup, whoever's connection it was. A raw socket of a
/// program passes for one: CAP_NET_RAW on the node is the node's own trust.
#[inline(always)]
pub fn is_of_kernel(skb: Skb, packet: &Packet) -> bool {
    is_said_by_kernel(skb, packet) == 1
}

crate::global! {
    fn is_said_by_kernel(skb: Skb, packet: &Packet) -> i32 {
        if skb.socket().is_some() {
            return 0;
        }
        let is = match packet.protocol {
            protocol::TCP => packet.tcp_flags & TCP_SYN == 0 && u32::from(packet.payload) == skb.len(),
            _ => matches!(control(&skb, packet), Control::Link | Control::EchoReply(_) | Control::Error(_)),
        };
        i32::from(is)
    }
}
