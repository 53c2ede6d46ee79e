//! DNS queries that leave.

use l7egg_ebpf_common::abi::{Address, Counter, NAME_MAX};
use l7egg_ebpf_common::answer::HEADER;
use l7egg_ebpf_common::packet::Packet;

use crate::maps::SETTINGS;
use crate::scratch::{SHORT, Scratch};
use crate::skb::Skb;
use crate::subject::Current;
use crate::{Refusal, event, name, queries, scratch};

/// As much of a message as its question's name can take.
const QNAME_MAX: u32 = HEADER + NAME_MAX as u32 + 1;
/// Type and class, behind the name (RFC 1035 §4.1.2).
const TYPE_AND_CLASS: u32 = 4;

/// Notes a query to one of the pod's resolvers: only its answer will be believed. The query passes, unless the policy
/// refuses names that no Allow rule matches and this is one.
#[inline(always)]
pub fn note(skb: Skb, subject: &Current, packet: &Packet) -> Result<(), Refusal> {
    // Of several datagrams at once (UDP_SEGMENT) only the first would be read.
    if subject.refuses() && skb.is_several() {
        return Err(Refusal::Unreadable);
    }
    match note_query(skb, subject, packet) {
        0 => Err(Refusal::ScratchBusy),
        REFUSED => Err(Refusal::Query),
        // What cannot be read may be any name.
        SHORT if subject.refuses() => Err(Refusal::Query),
        _ => Ok(()),
    }
}

/// Bytes of a datagram that a question can take.
#[inline(always)]
pub fn beginning(packet: &Packet) -> u32 {
    let len = u32::from(packet.payload_len);
    if len > QNAME_MAX + TYPE_AND_CLASS { QNAME_MAX + TYPE_AND_CLASS } else { len }
}

/// RFC 1035 §4.1.1.
const NXDOMAIN: i32 = 3;

/// What [`note_message`] says of a query that has to be refused.
pub const REFUSED: i32 = 2;

crate::global! {
    /// 0 if there is no memory to work in, else as [`note_message`]. A function of its own, so that its buffers leave the stack.
    fn note_query(skb: Skb, subject: &Current, packet: &Packet) -> i32 {
        scratch::with_payload(skb, packet.payload.into(), beginning(packet), Counter::QueriesUnreadable, |scratch, _| {
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
            || name::judge_question(&mut scratch.walk, &scratch.message, subject.policy) == 0 {
            event::count(Counter::QueriesUnreadable);
            // What cannot be read may be any name.
            return if subject.refuses() { REFUSED } else { 1 };
        }
        let matched = !scratch.walk.masks().is_empty();
        // First: looking for search domains takes the walk on. Whether there is room for it says nothing of whether it may leave.
        let is_remembered = matched && name::remember(scratch, subject.id, subject.policy);
        let name = scratch.walk.value();
        if subject.refuses() && !may_be_asked(scratch, subject.policy) {
            return REFUSED;
        }
        if matched && !is_remembered {
            return 1;
        }
        let Some(query) = queries::of(subject.id, local_port << 16 | u32::from(header.id), resolver) else { return 0 };
        queries::note(&query, name, matched);
        event::count(Counter::QueriesNoted);
        1
    }
}

/// A query, where names that no Allow rule matches are refused.
pub enum Question {
    /// It may pass.
    Other,
    /// Nobody can tell what it asks for, so it may not, and it cannot be answered.
    Unreadable,
    /// It has to be refused. Bytes of the header and the question, of which the answer is made, and whether a search domain is
    /// behind the name, as [`SEARCH`].
    Refused(u32, u32),
}

/// Above every length of a question.
const SEARCH: u32 = 1 << 16;

/// Looks at the query in the message of a claimed scratch.
#[inline(always)]
pub fn question(scratch: &mut Scratch, policy: u32) -> Question {
    match refused_question(scratch.index, policy) {
        1 => Question::Other,
        0 => Question::Unreadable,
        end => Question::Refused(end as u32 & !SEARCH, end as u32 & SEARCH),
    }
}

crate::global! {
    /// 0, 1 or the numbers of [`Question::Refused`] together.
    fn refused_question(scratch: u32, policy: u32) -> i32 {
        let Some(scratch) = scratch::claimed(scratch) else { return 0 };
        let header = scratch.message.header();
        if scratch.message.len < HEADER
            || !header.is_query()
            || name::judge_question(&mut scratch.walk, &scratch.message, policy) == 0
        {
            return 0;
        }
        // Looking for search domains takes the walk on.
        let end = scratch.walk.offset() as u32 + TYPE_AND_CLASS;
        if may_be_asked(scratch, policy) {
            return 1;
        }
        let search = if scratch.walk.has_search() { SEARCH } else { 0 };
        if end > scratch.message.len { 0 } else { (end | search) as i32 }
    }
}

/// Whether an Allow rule matches the name that was judged, or would without a search domain behind it, or with another.
#[inline(always)]
fn may_be_asked(scratch: &mut Scratch, policy: u32) -> bool {
    scratch.walk.masks().allow != 0 || name::may_be_searched(&mut scratch.walk, policy)
}

crate::global! {
    /// The response code for names that no Allow rule matches, or 0 where they are not refused. `search` is that of
    /// [`Question::Refused`]: resolvers end their search at any other code than NXDOMAIN, and never ask for the name itself.
    pub fn refusal(policy: u32, search: u32) -> i32 {
        if search != 0 {
            return NXDOMAIN;
        }
        // SAFETY: the value is read at once.
        unsafe { SETTINGS.get(&policy) }.map_or(0, |settings| settings.refusal as i32)
    }
}
