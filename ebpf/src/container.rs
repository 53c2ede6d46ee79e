//! Which container of a divided pod it is.
//!
//! A socket belongs to the cgroup of the process that made it for as long as it lives, wherever it is passed to. Containers may
//! make cgroups of their own below theirs, so the one at the level of containers counts. What the agent has not named
//! yet is nobody.

use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id};
use l7egg_ebpf_common::abi::LEVELS_MAX;

use crate::maps::CONTAINERS;
use crate::skb::Skb;

/// No container that is known.
pub const NONE: i32 = 0;
/// A container that no Egg is for.
pub const FREE: i32 = -1;

/// Of the socket that sent a packet or will read it: its subject id, or one of these. `level` is the one of containers' cgroups,
/// or 0.
#[inline(always)]
pub fn of_packet(skb: Skb, pod: u32, level: u32) -> i32 {
    container_of_packet(skb, pod, level)
}

/// The same of the process that makes a call.
#[inline(always)]
pub fn of_call(pod: u32, level: u32) -> i32 {
    container_of_call(pod, level)
}

crate::global! {
    fn container_of_packet(skb: Skb, pod: u32, level: u32) -> i32 {
        // SAFETY: the context is valid; the helper finds nothing at levels that there are not.
        find(pod, level, |level| unsafe { bpf_skb_ancestor_cgroup_id(skb.as_ptr(), level) })
    }
}

crate::global! {
    fn container_of_call(pod: u32, level: u32) -> i32 {
        // SAFETY: the helper has no preconditions.
        find(pod, level, |level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
    }
}

#[inline(always)]
fn find(pod: u32, level: u32, cgroup: impl Fn(i32) -> u64) -> i32 {
    if level != 0 {
        return known(cgroup(level as i32), pod);
    }
    // The agent does not know (its view of the tree begins in a cgroup namespace): no cgroup above a container's is in
    // the map.
    let mut level = 1;
    while level < LEVELS_MAX {
        let found = known(cgroup(level as i32), pod);
        if found != NONE {
            return found;
        }
        level += 1;
    }
    NONE
}

/// Not inlined: the key leaves the stack.
#[inline(never)]
fn known(cgroup: u64, pod: u32) -> i32 {
    let Some(container) = CONTAINERS.get_ptr(&cgroup) else { return NONE };
    // SAFETY: map memory; user space replaces entries as a whole.
    let (subject, of) = unsafe { ((*container).subject, (*container).pod) };
    match subject {
        // Whoever got into the pod's network from elsewhere is none of its containers.
        _ if of != pod => NONE,
        0 => FREE,
        subject => subject as i32,
    }
}
