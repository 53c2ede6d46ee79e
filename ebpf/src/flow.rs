//! UDP and SCTP: flows by address and port, because one socket may have many.

use l7egg_ebpf_common::abi::{
    Address, DOUBTED, Direction, FLOW_IDLE_NS, Flow, FlowKey, looks_like_an_answer,
};
use l7egg_ebpf_common::age::age_ns;
use l7egg_ebpf_common::packet::Packet;

use crate::maps::FLOWS;
use crate::subject::Current;
use crate::{EARLIER, JUDGED, NEW, Recalled, event};

/// What is known of the flow of a packet that leaves. `name` becomes the one of [`Recalled::Earlier`].
#[inline(always)]
pub fn recall(subject: &Current, packet: &Packet, name: &mut u64) -> Recalled {
    Recalled::from_number(find(subject, packet, name))
}

/// Not inlined, as all functions here: their keys leave the stack.
#[inline(never)]
fn find(subject: &Current, packet: &Packet, name: &mut u64) -> i32 {
    let key = key(subject, &packet.destination, packet.source_port, packet.destination_port, packet.protocol);
    let Some(known) = FLOWS.get_ptr_mut(&key) else { return NEW };
    // SAFETY: map memory; the worst that a race does is an older time.
    let known = unsafe { &mut *known };
    let now_ns = event::now_ns();
    if age_ns(now_ns, known.seen_ns) >= FLOW_IDLE_NS {
        return NEW;
    }
    if known.direction == Direction::Ingress as u32 || known.policy == subject.policy {
        known.seen_ns = now_ns;
        return JUDGED;
    }
    *name = known.name;
    EARLIER
}

/// Remembers that the policy in force allows the flow of a packet, by a name or 0. Not remembered means
/// judged again, no more.
#[inline(never)]
pub fn remember(subject: &Current, packet: &Packet, name: u64) -> i32 {
    let key = key(subject, &packet.destination, packet.source_port, packet.destination_port, packet.protocol);
    let flow =
        Flow { seen_ns: event::now_ns(), name, policy: subject.policy, direction: Direction::Egress as u32 };
    i32::from(FLOWS.insert(&key, &flow, 0).is_ok())
}

/// Remembers who opened the flow of a packet that arrived, so that its replies pass.
#[inline(never)]
pub fn ingress(subject: &Current, packet: &Packet) -> i32 {
    let key = key(subject, &packet.source, packet.destination_port, packet.source_port, packet.protocol);
    let now_ns = event::now_ns();
    if let Some(known) = FLOWS.get_ptr_mut(&key) {
        // SAFETY: as above.
        let known = unsafe { &mut *known };
        if age_ns(now_ns, known.seen_ns) < FLOW_IDLE_NS {
            // An answer keeps the pod's own flow its own: it must not turn into one that was opened from
            // outside, which no change of policy ends. One that only looks like an answer, from before the first policy, does so
            // for as long as that is doubted.
            if known.policy != DOUBTED || known.direction == Direction::Ingress as u32 {
                known.seen_ns = now_ns;
            }
            return 1;
        }
    }
    // What the pod itself has opened no policy has allowed yet.
    let flow = if subject.was_free() && looks_like_an_answer(packet.source_port, packet.destination_port) {
        Flow { seen_ns: now_ns, name: 0, policy: DOUBTED, direction: Direction::Egress as u32 }
    } else {
        Flow { seen_ns: now_ns, name: 0, policy: subject.policy, direction: Direction::Ingress as u32 }
    };
    i32::from(FLOWS.insert(&key, &flow, 0).is_ok())
}

/// 1 if the policy in force has allowed a flow, whose ports are the pod's above the other side's.
#[inline(never)]
pub fn is_judged(subject: &Current, remote: &Address, protocol: u8, ports: u32) -> i32 {
    let key = key(subject, remote, (ports >> 16) as u16, ports as u16, protocol);
    let Some(known) = FLOWS.get_ptr(&key) else { return 0 };
    // SAFETY: map memory; the worst that a race does is an older time.
    let known = unsafe { &*known };
    let is_live = age_ns(event::now_ns(), known.seen_ns) < FLOW_IDLE_NS;
    i32::from(is_live && known.policy == subject.policy)
}

/// Whether the pod itself has opened a flow.
#[inline(always)]
pub fn is_own(key: &FlowKey) -> bool {
    // SAFETY: a number, read at once.
    FLOWS.get_ptr(key).is_some_and(|flow| unsafe { (*flow).direction } == Direction::Egress as u32)
}

#[inline(always)]
fn key(subject: &Current, remote: &Address, local_port: u16, remote_port: u16, protocol: u8) -> FlowKey {
    FlowKey { subject: subject.id, local_port, remote_port, remote: *remote, protocol, reserved: [0; 3] }
}
