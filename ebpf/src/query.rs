//! DNS queries that leave.

use l7egg_ebpf_common::abi::{Address, Counter, NAME_MAX, QueryKey};
use l7egg_ebpf_common::answer::{HEADER, Message};
use l7egg_ebpf_common::packet::Packet;

use crate::maps::{OTHER_QUERIES, QUERIES};
use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::subject::Current;
use crate::{Refusal, event, name, scratch};

/// As much of a message as its question's name can take.
const QUESTION_MAX: u32 = HEADER + NAME_MAX as u32 + 1;

/// Notes a query to one of the pod's resolvers: only its answer will be believed. The query passes in any
/// case.
#[inline(always)]
pub fn note(skb: &Skb, subject: &Current, packet: &Packet) -> Result<(), Refusal> {
    if try_note(skb, subject, packet) == 1 { Ok(()) } else { Err(Refusal::ScratchBusy) }
}

/// 0 if there is no memory to work in. A function of its own, so that its buffers leave the stack.
#[inline(never)]
fn try_note(skb: &Skb, subject: &Current, packet: &Packet) -> i32 {
    let len = u32::from(packet.payload_len);
    let len = if len > QUESTION_MAX { QUESTION_MAX } else { len };
    scratch::with_payload(skb, packet, len, Counter::QueriesUnreadable, |scratch, message| {
        note_message(scratch, message, subject, &packet.destination, packet.source_port);
    })
}

/// Notes the query that a message is, or its beginning.
#[inline(always)]
pub fn note_message(
    scratch: &mut Scratch,
    message: &Message,
    subject: &Current,
    resolver: &Address,
    local_port: u16,
) {
    let header = message.header();
    if message.len < HEADER || !header.is_query() || !name::read(&mut scratch.walk, message, HEADER) {
        event::count(Counter::QueriesUnreadable);
        return;
    }
    name::judge(&mut scratch.walk, subject.policy);
    let matched = !scratch.walk.masks().is_empty();
    if matched && !name::remember(scratch, subject.policy) {
        event::count(Counter::LearnedFull);
        return;
    }
    let key = QueryKey { subject: subject.id, local_port, id: header.id, resolver: *resolver };
    let name = scratch.walk.value();
    let _ = if matched { QUERIES.insert(&key, &name, 0) } else { OTHER_QUERIES.insert(&key, &name, 0) };
    event::count(Counter::QueriesNoted);
}
