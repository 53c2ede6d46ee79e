//! TCP of held pods, and of those that wait at the gate: it is tried again soon, and for as long as that lasts.

use aya_ebpf::bindings::{BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_RTO_CB_FLAG, BPF_SOCK_OPS_TIMEOUT_INIT};
use aya_ebpf::helpers::generated::{bpf_getsockopt, bpf_setsockopt};
use aya_ebpf::programs::SockOpsContext;

use crate::gate;
use crate::subject::{self, Known};

/// When a SYN or SYN-ACK of a held pod is sent again, in ticks: 50 to 500 ms by CONFIG_HZ, where TCP waits for a second
/// (RFC 6298 §2.1). Held pods seldom wait that long for their policy.
const HELD_TIMEOUT: u32 = 50;
/// Of include/uapi/linux/in.h and tcp.h.
const SOL_TCP: i32 = 6;
const TCP_SYNCNT: i32 = 7;
/// `MAX_TCP_SYNCNT` of include/net/tcp.h.
const SYNCNT_MAX: u32 = 127;

/// Heeds a connection of a held pod; whether that is all there is to do.
#[inline(always)]
pub fn heed(ctx: &SockOpsContext) -> bool {
    match ctx.op() {
        BPF_SOCK_OPS_TIMEOUT_INIT => {
            if is_held() {
                try_soon(ctx);
            }
            true
        }
        BPF_SOCK_OPS_RTO_CB => {
            if is_held() {
                try_once_more(ctx);
            } else {
                let _ = ctx.set_cb_flags(flags(ctx) & !(BPF_SOCK_OPS_RTO_CB_FLAG as i32));
            }
            true
        }
        _ => false,
    }
}

/// The same where all pods pass: of one that is not admitted, connections have the gate's mark, until their first packet leaves. It
/// does not say that it need not be called any more: the pod's own program may still want to be.
#[inline(always)]
pub fn heed_at_gate(ctx: &SockOpsContext) {
    match ctx.op() {
        BPF_SOCK_OPS_TIMEOUT_INIT if is_at_gate(ctx) => try_soon(ctx),
        BPF_SOCK_OPS_RTO_CB if is_at_gate(ctx) => try_once_more(ctx),
        _ => {}
    }
}

#[inline(always)]
fn is_at_gate(ctx: &SockOpsContext) -> bool {
    // SAFETY: the context is valid.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    !socket.is_null() && gate::is_marked(socket)
}

#[inline(always)]
fn is_held() -> bool {
    matches!(subject::pod(), Known::Unconfigured { .. })
}

/// What other programs have asked to be called for, and this one.
#[inline(always)]
fn flags(ctx: &SockOpsContext) -> i32 {
    // SAFETY: the context is valid.
    unsafe { (*ctx.ops).bpf_sock_ops_cb_flags as i32 }
}

#[inline(always)]
fn try_soon(ctx: &SockOpsContext) {
    // Refused for a SYN-ACK, which has no socket of its own yet.
    let _ = ctx.set_cb_flags(flags(ctx) | BPF_SOCK_OPS_RTO_CB_FLAG as i32);
    ctx.set_reply(HELD_TIMEOUT);
}

/// The kernel counts tries that did not leave the pod as any others, and gives up after `net.ipv4.tcp_syn_retries` of them: after a few
/// seconds, where it tries twice a second. Each of them is one more, so that as many as ever are left when the pod has its policy.
#[inline(always)]
fn try_once_more(ctx: &SockOpsContext) {
    const SIZE: i32 = size_of::<u32>() as i32;
    let mut count = 0u32;
    // SAFETY: the context is valid, and the value is a whole one.
    let known = unsafe { bpf_getsockopt(ctx.ops.cast(), SOL_TCP, TCP_SYNCNT, (&raw mut count).cast(), SIZE) };
    if known == 0 && count < SYNCNT_MAX {
        let mut more = count + 1;
        // SAFETY: as above.
        unsafe { bpf_setsockopt(ctx.ops.cast(), SOL_TCP, TCP_SYNCNT, (&raw mut more).cast(), SIZE) };
    }
}
