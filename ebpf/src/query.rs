//! DNS queries that leave.

use l7egg_ebpf_common::abi::{Counter, NAME_MAX, Query, QueryKey};
use l7egg_ebpf_common::answer::{HEADER, Header};
use l7egg_ebpf_common::packet::{Bytes, Packet};

use crate::maps::QUERIES;
use crate::skb::Skb;
use crate::subject::Current;
use crate::{Refusal, event, name, scratch};

/// As much of a message as its question's name can take.
const QUESTION_MAX: u32 = HEADER + NAME_MAX as u32 + 1;

/// Notes a query to one of the pod's resolvers, if a rule matches its name: only its answer will be
/// believed. The query passes in any case.
#[inline(always)]
pub fn note(skb: &Skb, subject: &Current, packet: &Packet) -> Result<(), Refusal> {
    if try_note(skb, subject, packet) == 1 { Ok(()) } else { Err(Refusal::ScratchBusy) }
}

/// 0 if there is no memory to work in. A function of its own, so that its buffers leave the stack.
#[inline(never)]
fn try_note(skb: &Skb, subject: &Current, packet: &Packet) -> i32 {
    let Some(header) = skb.read::<{ HEADER as usize }>(packet.payload as usize) else {
        event::count(Counter::QueriesUnreadable);
        return 1;
    };
    let header = Header::parse(&header);
    if !header.is_query() {
        event::count(Counter::QueriesUnreadable);
        return 1;
    }
    let len = u32::from(packet.payload_len);
    let len = if len > QUESTION_MAX { QUESTION_MAX } else { len };
    let name = scratch::with(|scratch| {
        if !skb.copy(u32::from(packet.payload), len, &mut scratch.message) || !name::read(scratch, HEADER) {
            event::count(Counter::QueriesUnreadable);
            return Ok(0);
        }
        name::judge(&mut scratch.walk, subject.policy);
        if scratch.walk.masks().is_empty() {
            return Ok(0);
        }
        name::remember(scratch, subject.policy);
        Ok(scratch.walk.value())
    });
    let Ok(name) = name else { return 0 };
    if name != 0 {
        let key = QueryKey {
            subject: subject.id,
            local_port: packet.source_port,
            id: header.id,
            resolver: packet.destination,
        };
        let _ = QUERIES.insert(&key, &Query { name, asked_ns: event::now_ns() }, 0);
        event::count(Counter::QueriesNoted);
    }
    1
}
