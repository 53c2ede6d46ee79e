//! Connections that have come to their end: the other side is to notice, and the pod's kernel says what is still to be said by
//! sockets of nobody. So the backstop has to know them. Without it nobody's packets are not judged.
//!
//! *Reset*: it is not allowed any more. Where something that was sent before the reset has not arrived, the other side asks back
//! (RFC 5961 §3), and is answered by one more. *Closed*: it was allowed, and without its socket nobody can tell: not by what name,
//! which may be forgotten when the other side closes it too, or goes on sending; nor whose of a divided pod's containers it was,
//! or what was asked for where a load balancer on sockets put something else in its place.

use l7egg_ebpf_common::abi::{FLOW_IDLE_NS, FlowKey, protocol};
use l7egg_ebpf_common::age::age_ns;
use l7egg_ebpf_common::packet::{Packet, TCP_FIN, TCP_RST, TCP_SYN, TcpEnds};

use crate::event;
use crate::maps::ENDED;
use crate::subject::Current;

/// How long the other side may ask back, in ns.
const RESET_NS: u64 = 10_000_000_000;

/// How it ended, in the keys of `ENDED`.
const RESET: u8 = 1;
const CLOSED: u8 = 2;

/// Whether a packet of so many bytes is a TCP reset that carries nothing.
#[inline(always)]
pub fn is_reset(packet: &Packet, len: usize) -> bool {
    packet.tcp_flags & TCP_RST != 0 && usize::from(packet.payload) == len
}

/// Whether a packet ends a connection, from one side at least.
#[inline(always)]
pub fn is_end(tcp_flags: u8) -> bool {
    tcp_flags & (TCP_FIN | TCP_RST) != 0
}

/// Remembers the connection of a reset that leaves because it is not allowed any more.
#[inline(always)]
pub fn reset(subject: &Current, packet: &Packet) {
    remember(subject, packet, RESET);
}

/// Remembers the connection of a packet that leaves and ends it.
#[inline(always)]
pub fn closed(subject: &Current, packet: &Packet) {
    remember(subject, packet, CLOSED);
}

/// The same of a packet of a free container, in the pod with this id.
#[inline(never)]
pub fn closed_by(pod: u32, ends: &TcpEnds) -> i32 {
    let key = FlowKey {
        subject: pod,
        local_port: ends.source_port,
        remote_port: ends.destination_port,
        remote: ends.destination,
        protocol: protocol::TCP,
        reserved: [CLOSED, 0, 0],
    };
    i32::from(ENDED.insert(&key, &event::now_ns(), 0).is_ok())
}

/// Not inlined, as the next one: the key leaves the stack.
#[inline(never)]
fn remember(subject: &Current, packet: &Packet, how: u8) -> i32 {
    i32::from(ENDED.insert(&key(subject, packet, how), &event::now_ns(), 0).is_ok())
}

/// 1 if a packet of so many bytes is one of the last of such a connection. None of them carries anything.
#[inline(never)]
pub fn is_last(subject: &Current, packet: &Packet, len: usize) -> i32 {
    if packet.protocol != protocol::TCP
        || usize::from(packet.payload) != len
        || packet.tcp_flags & TCP_SYN != 0
    {
        return 0;
    }
    let was_reset = packet.tcp_flags & TCP_RST != 0 && is_within(&key(subject, packet, RESET), RESET_NS);
    i32::from(was_reset || is_within(&key(subject, packet, CLOSED), FLOW_IDLE_NS))
}

#[inline(always)]
fn is_within(key: &FlowKey, time_ns: u64) -> bool {
    // SAFETY: a number, read at once.
    unsafe { ENDED.get(key) }.is_some_and(|ended_ns| age_ns(event::now_ns(), *ended_ns) < time_ns)
}

#[inline(always)]
fn key(subject: &Current, packet: &Packet, how: u8) -> FlowKey {
    FlowKey {
        subject: subject.pod(),
        local_port: packet.source_port,
        remote_port: packet.destination_port,
        remote: packet.destination,
        protocol: protocol::TCP,
        reserved: [how, 0, 0],
    }
}
