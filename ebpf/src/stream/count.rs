//! How many connections to name servers a pod may have that are read: each takes 32 KiB of the kernel's memory, which is not the pod's.

use aya_ebpf::bindings::{BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, bpf_sock};
use aya_ebpf::helpers::generated::bpf_sk_storage_delete;
use aya_ebpf::programs::SockOpsContext;
use l7egg_ebpf_common::abi::{CONVERSATIONS_MAX, DNS_PORT};
use l7egg_ebpf_common::atomics::Atomics;

use super::half::{Conversation, create, remember_end, storage};
use crate::atomic::{Bpf, decrement, increment, swap};
use crate::maps::{CONVERSATIONS, DNS_STREAMS};
use crate::share;
use crate::subject::{self, Known};

/// What is kept of a connection that a pod opens, if it may have another one.
#[inline(always)]
pub fn open(socket: *mut bpf_sock, pod: u32) -> Option<*mut Conversation> {
    let count = CONVERSATIONS.get(pod)?;
    if Bpf::load(count) >= CONVERSATIONS_MAX {
        share::turn_away(pod);
        return None;
    }
    let conversation = create(socket)?;
    // SAFETY: the socket's own storage.
    if swap(unsafe { &(*conversation).counted_for }, pod.into()) == 0 {
        increment(count);
    }
    Some(conversation)
}

/// A connection is about to be opened: of those to name servers this program is to hear the end.
#[inline(always)]
pub fn connects(ctx: &SockOpsContext) {
    // The kernel keeps it in network order, in the upper half on little endian.
    let is_dns = u32::from_be(ctx.remote_port()) as u16 == DNS_PORT;
    let is_told = match subject::pod() {
        Known::Policy(pod) => is_dns || pod.is_translated(),
        Known::Unconfigured { is_translated } => is_dns || is_translated,
        _ => is_dns,
    };
    if is_told {
        let _ = ctx.set_cb_flags(ctx.cb_flags() as i32 | BPF_SOCK_OPS_STATE_CB_FLAG as i32);
    }
}

/// A connection has another state. When it is over nothing of it is kept, however long its socket is.
#[inline(always)]
pub fn changes(ctx: &SockOpsContext) {
    if ctx.arg(1) != BPF_TCP_CLOSE {
        return;
    }
    // SAFETY: the context is valid; its socket is tested before it is used.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    let Some(conversation) = storage(socket) else { return };
    let pod = subject::own();
    // Another subject's program, the node's, hears of the same connections.
    // SAFETY: the socket's own storage.
    if unsafe { Bpf::load(&(*conversation).counted_for) } != u64::from(pod) {
        return;
    }
    // SAFETY: as above.
    if unsafe { (*conversation).sent.ended } != 0 {
        remember_end(socket);
    }
    // SAFETY: a full socket, and a map for such.
    let deleted = unsafe { bpf_sk_storage_delete((&raw const DNS_STREAMS).cast_mut().cast(), socket.cast()) };
    if deleted == 0
        && let Some(count) = CONVERSATIONS.get(pod)
        // The agent begins anew with a pod's number.
        && Bpf::load(count) > 0
    {
        decrement(count);
    }
}
