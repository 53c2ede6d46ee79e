//! Connections that were reset because they are not allowed any more: the other side is to notice.
//!
//! The reset itself may not be enough. Where something that was sent before it has not arrived, the other side asks
//! back (RFC 5961 §3), and the pod's kernel answers with one more, by a socket of nobody. So the backstop has to know
//! these connections. Without it nobody's packets are not judged.

use l7egg_ebpf_common::abi::{FlowKey, protocol};
use l7egg_ebpf_common::packet::{Packet, TCP_RST};

use crate::event;
use crate::maps::INBOUND;
use crate::subject::Current;

/// How long the other side may ask back, in ns.
const ENDED_NS: u64 = 10_000_000_000;
/// What tells these keys of `INBOUND` from those of what came in.
const MARK: [u8; 3] = [1, 0, 0];

/// Whether a packet of so many bytes is a TCP reset that carries nothing.
#[inline(always)]
pub fn is_reset(packet: &Packet, len: usize) -> bool {
    packet.tcp_flags & TCP_RST != 0 && usize::from(packet.payload) == len
}

/// Remembers the connection of a reset that leaves. Not inlined, as the next one: the key leaves the stack.
#[inline(never)]
pub fn remember(subject: &Current, packet: &Packet) -> i32 {
    i32::from(INBOUND.insert(&key(subject, packet), &event::now_ns(), 0).is_ok())
}

/// 1 if the connection of a packet that leaves is one of these.
#[inline(never)]
pub fn is_known(subject: &Current, packet: &Packet) -> i32 {
    // SAFETY: a number, read at once.
    match unsafe { INBOUND.get(&key(subject, packet)) } {
        Some(ended_ns) => i32::from(event::now_ns().wrapping_sub(*ended_ns) < ENDED_NS),
        None => 0,
    }
}

#[inline(always)]
fn key(subject: &Current, packet: &Packet) -> FlowKey {
    FlowKey {
        subject: subject.pod(),
        local_port: packet.source_port,
        remote_port: packet.destination_port,
        remote: packet.destination,
        protocol: protocol::TCP,
        reserved: MARK,
    }
}
