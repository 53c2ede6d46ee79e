//! Whether a packet came in by the pod's own network, and not by one of the pod's own making.
//!
//! Whoever may make a network namespace (everybody, where user namespaces are free) can answer there in anybody's
//! name. So each socket is marked with the namespace that it was made in.

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::bpf_get_netns_cookie;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::programs::{SockContext, SockOpsContext};
use l7egg_ebpf_common::abi::{ANY_INTERFACE, Network};

use crate::maps::{NETNS, NETWORKS};
use crate::node;
use crate::skb::Skb;
use crate::subject::{self, Current, Known};

/// 1 where the kernel itself tells whose network a packet's socket is in (Linux 6.13). It knows that of sockets that no mark could be
/// put on too: from before the programs were attached, and those that it makes itself. Set when the programs are loaded.
#[unsafe(no_mangle)]
static TELLS_NETNS: u32 = 0;

/// Marks a socket that is being made with its namespace, if that is not known to be the pod's own: most need no mark. Whether that
/// could be done: without its mark it would pass for one of the pod's own network.
#[inline(always)]
pub fn created(ctx: &SockContext) -> bool {
    let own = match subject::pod() {
        Known::Attaching => return true,
        Known::Policy(subject) if node::leaves_alone_running(&subject) => return true,
        Known::Policy(pod) => NETWORKS.get(pod.id),
        _ => None,
    };
    // SAFETY: the context is the socket.
    mark(ctx.sock, unsafe { bpf_get_netns_cookie(ctx.sock.cast()) }, own)
}

/// The same for one that connects: the kernel makes sockets of its own (for MPTCP, for SMC), and asks no program then.
#[inline(always)]
pub fn connects(ctx: &SockOpsContext) {
    let own = match subject::pod() {
        Known::Attaching | Known::Free => return,
        // Of the node this is asked for any socket, and what it is marked with is true of all.
        Known::Policy(pod) => NETWORKS.get(pod.id),
        // A pod that is held may have its policy before the next try.
        _ => None,
    };
    // SAFETY: the context is valid; its socket is tested before it is used.
    let (socket, netns) = unsafe { ((*ctx.ops).__bindgen_anon_2.sk, bpf_get_netns_cookie(ctx.ops.cast())) };
    if !socket.is_null() {
        let _ = mark(socket, netns, own);
    }
}

#[inline(always)]
fn mark(socket: *mut bpf_sock, mut netns: u64, own: Option<&Network>) -> bool {
    if own.is_some_and(|network| network.netns == netns) {
        return true;
    }
    // SAFETY: a socket that is not null; the value is a whole one.
    let marked = unsafe {
        bpf_sk_storage_get(
            (&raw const NETNS).cast_mut().cast(),
            socket.cast(),
            (&raw mut netns).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    !marked.is_null()
}

/// Whether what arrived may be believed. Where the kernel does not tell ([`TELLS_NETNS`]), a socket without a mark may, also one from
/// before the programs were attached.
#[inline(always)]
pub fn is_own(skb: Skb, subject: &Current) -> bool {
    is_of(skb, subject.pod())
}

/// The same for the pod with this id.
#[inline(always)]
pub fn is_of(skb: Skb, pod: u32) -> bool {
    is_own_network(skb, pod) == 1
}

crate::global! {
    fn is_own_network(skb: Skb, subject: u32) -> i32 {
        let Some(network) = NETWORKS.get(subject) else { return 1 };
        if network.netns == 0 {
            return 1;
        }
        let interface = skb.interface();
        let is_known = network.flags & ANY_INTERFACE != 0 || network.interfaces.contains(&interface);
        // SAFETY: a constant to the compiler, but not to who loads the program.
        let netns = if unsafe { (&raw const TELLS_NETNS).read_volatile() } != 0 {
            // SAFETY: the context is valid; where the kernel has no such helper for packets, this is not in the program.
            skb.any_socket().map(|_| unsafe { bpf_get_netns_cookie(skb.as_ptr().cast()) })
        } else {
            made_in(skb)
        };
        i32::from(is_known && netns.is_none_or(|netns| netns == network.netns))
    }
}

/// Whether a pod has the backstop at all.
#[inline(always)]
pub fn has_backstop(pod: u32) -> bool {
    NETWORKS.get(pod).is_some_and(|network| network.covered != 0)
}

/// Whether a packet leaves by an interface with the backstop.
#[inline(always)]
pub fn is_covered(skb: Skb, subject: &Current) -> bool {
    is_covered_interface(skb, subject.pod()) == 1
}

crate::global! {
    fn is_covered_interface(skb: Skb, subject: u32) -> i32 {
        let Some(network) = NETWORKS.get(subject) else { return 0 };
        // The pod's next network has its interface under the same number, and the agent may not have seen it yet.
        if skb.socket().is_none() || made_in(skb).is_some_and(|netns| netns != network.netns) {
            return 0;
        }
        let (interface, covered) = (skb.interface(), network.covered);
        let is_covered = |(bit, known): (usize, &u32)| *known == interface && covered & 1 << bit != 0;
        i32::from(network.interfaces.iter().enumerate().any(is_covered))
    }
}

/// Where the packet's socket was made, of whatever kind it is, if it has a mark.
#[inline(always)]
fn made_in(skb: Skb) -> Option<u64> {
    let socket = skb.any_socket()?;
    // SAFETY: `socket` is tested for null, and the helper finds nothing for one that is not full; the storage is tested before it is
    // read.
    unsafe {
        let found =
            bpf_sk_storage_get((&raw const NETNS).cast_mut().cast(), socket.cast(), core::ptr::null_mut(), 0);
        if found.is_null() { None } else { Some(*found.cast::<u64>()) }
    }
}
