//! The gate, where new pods are held however long that takes (`--strict`): on the cgroups that hold all of a node's pods. The
//! agent admits each pod that it has decided about; of others nothing leaves, also while the agent is away.
//!
//! A pod's own programs look at every packet. This one would for all pods, those too that no Egg selects, so it looks at a mark
//! in the socket: a pod that is not admitted gets one in each socket that it makes.

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::bpf_get_netns_cookie;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_sk_storage_delete, bpf_sk_storage_get, bpf_skb_ancestor_cgroup_id,
};
use aya_ebpf::programs::SockContext;
use l7egg_ebpf_common::abi::{HOST_NETNS, PODS_CGROUPS};

use crate::maps::{ADMITTED, PODS, WAITING};
use crate::skb::Skb;

/// Of include/uapi/linux/in.h.
const IPPROTO_MPTCP: u32 = 262;

/// Marks a socket that a pod makes which is not admitted; whether it may be made at all. Those of pods in the node's network get
/// no mark: what makes the node work is among them.
#[inline(always)]
pub fn created(ctx: &SockContext) -> bool {
    // SAFETY: the helper takes any number.
    if is_admitted(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) }) {
        return true;
    }
    let socket = ctx.sock;
    // SAFETY: the context is the socket; the value is a whole one.
    unsafe {
        let netns = bpf_get_netns_cookie(socket.cast());
        if ADMITTED.get_ptr(&HOST_NETNS).is_some_and(|host| *host == netns) {
            return true;
        }
        let mut mark = 1u8;
        let marked = bpf_sk_storage_get(
            (&raw const WAITING).cast_mut().cast(),
            socket.cast(),
            (&raw mut mark).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        );
        // The kernel makes the sockets that MPTCP sends by, and asks no program. Programs take TCP then.
        !marked.is_null() && (*socket).protocol != IPPROTO_MPTCP
    }
}

/// Whether a packet may leave.
#[inline(always)]
pub fn passes(skb: Skb) -> bool {
    let Some(socket) = skb.any_socket() else { return true };
    if !is_marked(socket) || skb.is_loopback() {
        return true;
    }
    // SAFETY: the context is valid; the helper takes any number.
    let is_admitted = is_admitted(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb.as_ptr(), level) });
    if is_admitted {
        // SAFETY: the socket was tested for null.
        unsafe { bpf_sk_storage_delete((&raw const WAITING).cast_mut().cast(), socket.cast()) };
    }
    is_admitted
}

/// Whether a socket, which is not null, has the mark of a pod that was not admitted when it made it.
#[inline(always)]
pub fn is_marked(socket: *mut bpf_sock) -> bool {
    // SAFETY: `socket` was tested for null, and the helper finds nothing for one that is not a full socket.
    let mark = unsafe {
        bpf_sk_storage_get((&raw const WAITING).cast_mut().cast(), socket.cast(), core::ptr::null_mut(), 0)
    };
    !mark.is_null()
}

/// Whether one of these ancestors is an admitted pod: pods are one level below the cgroup that holds all, or two, where they are in
/// one of a class (`kubepods/burstable`).
#[inline(always)]
fn is_admitted(ancestor: impl Fn(i32) -> u64) -> bool {
    let mut index = 0;
    while index < PODS_CGROUPS {
        let Some(pods) = PODS.get(index) else { return true };
        if pods.level == 0 {
            return true;
        }
        let level = pods.level as i32;
        if ancestor(level) == pods.id {
            let is_known = |id: u64| ADMITTED.get_ptr(&id).is_some();
            return is_known(ancestor(level + 2)) || is_known(ancestor(level + 1));
        }
        index += 1;
    }
    true
}
