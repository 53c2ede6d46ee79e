//! DNS queries that leave.

use l7egg_ebpf_common::abi::{Address, Counter, NAME_MAX, QueryKey};
use l7egg_ebpf_common::answer::HEADER;
use l7egg_ebpf_common::packet::Packet;

use crate::maps::{OTHER_QUERIES, QUERIES, SETTINGS};
use crate::scratch::SHORT;
use crate::skb::Skb;
use crate::subject::Current;
use crate::{Refusal, event, name, scratch};

/// As much of a message as its question's name can take.
const QUESTION_MAX: u32 = HEADER + NAME_MAX as u32 + 1;

/// Notes a query to one of the pod's resolvers: only its answer will be believed. The query passes, unless the policy
/// refuses names that no Allow rule matches and this is one.
#[inline(always)]
pub fn note(skb: Skb, subject: &Current, packet: &Packet) -> Result<(), Refusal> {
    match note_query(skb, subject, packet) {
        0 => Err(Refusal::ScratchBusy),
        REFUSED => Err(Refusal::Query),
        // What cannot be read may be any name.
        SHORT if refuses(subject.policy) => Err(Refusal::Query),
        _ => Ok(()),
    }
}

/// What [`note_message`] says of a query that has to be refused.
pub const REFUSED: i32 = 2;

crate::global! {
    /// 0 if there is no memory to work in, else as [`note_message`]. A function of its own, so that its buffers leave the stack.
    fn note_query(skb: Skb, subject: &Current, packet: &Packet) -> i32 {
        let len = u32::from(packet.payload_len);
        let len = if len > QUESTION_MAX { QUESTION_MAX } else { len };
        scratch::with_payload(skb, packet, len, Counter::QueriesUnreadable, |scratch, _| {
            note_message(scratch.index, subject, &packet.destination, packet.source_port.into())
        })
    }
}

crate::global! {
    /// Notes the query that the message of a claimed scratch is, or its beginning: 1, or [`REFUSED`].
    pub fn note_message(scratch: u32, subject: &Current, resolver: &Address, local_port: u32) -> i32 {
        let Some(scratch) = scratch::claimed(scratch) else { return 0 };
        let header = scratch.message.header();
        if scratch.message.len < HEADER
            || !header.is_query()
            || !name::read(&mut scratch.walk, &scratch.message, HEADER) {
            event::count(Counter::QueriesUnreadable);
            // What cannot be read may be any name.
            return if refuses(subject.policy) { REFUSED } else { 1 };
        }
        name::judge_name(&mut scratch.walk, subject.policy);
        let masks = scratch.walk.masks();
        let matched = !masks.is_empty();
        if matched && !name::remember(scratch, subject.policy) {
            event::count(Counter::LearnedFull);
            return 1;
        }
        let name = scratch.walk.value();
        if masks.allow == 0
            && refuses(subject.policy)
            && !name::may_be_searched(&mut scratch.walk, subject.policy)
        {
            return REFUSED;
        }
        let key = QueryKey { subject: subject.id, local_port: local_port as u16, id: header.id, resolver: *resolver };
        let _ = if matched { QUERIES.insert(&key, &name, 0) } else { OTHER_QUERIES.insert(&key, &name, 0) };
        event::count(Counter::QueriesNoted);
        1
    }
}

/// Whether the policy refuses names that no Allow rule matches.
#[inline(always)]
pub fn refuses(policy: u32) -> bool {
    refusal(policy) != 0
}

/// A function of its own, so that its key leaves the stack.
#[inline(never)]
fn refusal(policy: u32) -> u32 {
    // SAFETY: the value is read at once.
    unsafe { SETTINGS.get(&policy) }.map_or(0, |settings| settings.refuse_unmatched)
}
