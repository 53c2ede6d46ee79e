//! DNS over TCP to and from the pod's own resolvers.
//!
//! The messages are put together in the socket's storage, so that the last segment of an answer goes on only
//! when its addresses are known. No user space is needed: an agent that is down delays nothing.

mod count;
mod half;

use aya_ebpf::helpers::bpf_loop;
use l7egg_ebpf_common::answer::{Message, QueryStart};
use l7egg_ebpf_common::packet::{Bytes, Packet, TCP_ACK, TCP_SYN};
use l7egg_ebpf_common::stream::{PIECES_MAX, Piece, Segment, Stream};

pub use self::count::{changes, connects};
use self::half::{Body, Half, claim, has_ended, release, storage, take_hold};
pub use self::half::{Conversation, has_end, has_read, last_query};
use crate::skb::Skb;
use crate::subject::Current;
use crate::{Refusal, answer, query, scratch};

/// Offset of the sequence number in the TCP header (RFC 9293 §3.1).
const SEQUENCE: usize = 4;
/// `BPF_TCP_SYN_SENT` of include/uapi/linux/bpf.h.
const SYN_SENT: u32 = 2;

/// Messages that are read at a time, and how many times that is done when a segment comes. A segment with more is held back: its
/// sender repeats it, and then the rest is read.
const MESSAGES_MAX: u32 = 2;
const TIMES_MAX: u32 = 256;

/// Notes the queries in a segment that leaves. An early one is refused: what is missing before it was.
#[inline(always)]
pub fn sent(skb: Skb, subject: &Current, packet: &Packet) -> Result<(), Refusal> {
    // There is no connection yet to answer on. The next SYN comes without it (RFC 7413 §4.1.3).
    if subject.refuses() && packet.tcp_flags & TCP_SYN != 0 && skb.len() != u32::from(packet.payload) {
        return Err(Refusal::Unreadable);
    }
    match next(each_time(packet, || note_segment(skb, subject, packet)))? {
        Next::Over => Ok(()),
        Next::Message | Next::Early => Err(Refusal::ScratchBusy),
        Next::Ended => Err(Refusal::Query),
        Next::Full => Err(Refusal::Full),
        // Nobody can tell what it asks for.
        Next::Unknown if subject.refuses() => Err(Refusal::Unreadable),
        Next::Unknown => Ok(()),
    }
}

/// Learns from the answers in a segment that arrives. An early one is refused.
#[inline(always)]
pub fn received(skb: Skb, subject: &Current, packet: &Packet) -> Result<(), Refusal> {
    match next(each_time(packet, || learn_segment(skb, subject, packet)))? {
        Next::Over | Next::Unknown => Ok(()),
        Next::Message | Next::Early => Err(Refusal::ScratchBusy),
        Next::Ended | Next::Full => Err(Refusal::Answer),
    }
}

/// Reads on where there may be more. A first segment is read from its beginning each time, and so once.
#[inline(always)]
fn each_time(packet: &Packet, read: impl Fn() -> i32) -> i32 {
    let mut next = read();
    let mut times = 1;
    while next == Next::Message as i32 && times < TIMES_MAX && packet.tcp_flags & TCP_SYN == 0 {
        next = read();
        times += 1;
    }
    next
}

crate::global! {
    /// What comes next, as a number, or [`BUSY`].
    fn note_segment(skb: Skb, subject: &Current, packet: &Packet) -> i32 {
        each_message(skb, subject, packet, |half: *mut Half<QueryStart>, scratch| note(half, scratch, subject, packet))
    }
}

crate::global! {
    /// The same.
    fn learn_segment(skb: Skb, subject: &Current, packet: &Packet) -> i32 {
        each_message(skb, subject, packet, |half: *mut Half<Message>, scratch| learn(half, scratch, subject, packet))
    }
}

#[inline(always)]
fn next(number: i32) -> Result<Next, Refusal> {
    for next in [Next::Over, Next::Message, Next::Early, Next::Ended, Next::Unknown, Next::Full] {
        if number == next as i32 {
            return Ok(next);
        }
    }
    Err(Refusal::ScratchBusy)
}

/// Takes the bytes of a segment and calls `work` with every message that is complete then. What comes next, as a number:
/// [`Next::Message`] says that there may be more than were read; or [`BUSY`].
#[inline(always)]
fn each_message<M: Body>(
    skb: Skb,
    subject: &Current,
    packet: &Packet,
    work: impl Fn(*mut Half<M>, u32) -> i32,
) -> i32 {
    if packet.tcp_flags & TCP_SYN != 0 {
        let begins = begins::<M>(skb, subject, packet);
        if begins != BEGINS {
            return begins;
        }
    }
    let len = skb.len().wrapping_sub(u32::from(packet.payload));
    if len == 0 || len > skb.len() {
        return Next::Over as i32;
    }
    let half = match claim::<M>(skb) {
        Ok(Some(half)) => half,
        Ok(None) => return Next::Unknown as i32,
        Err(_) => return BUSY,
    };
    // Before any byte is taken: what cannot be read now is, when its sender repeats it.
    let scratch = scratch::hold();
    if scratch == scratch::NONE {
        release(half);
        return BUSY;
    }
    let mut next = Next::Message;
    let mut i = 0;
    // What ended it stays in memory, to be answered.
    while i < MESSAGES_MAX && !has_ended(half) {
        next = segment(skb, packet, half, len);
        if next != Next::Message {
            break;
        }
        work(half, scratch as u32);
        i += 1;
    }
    if has_ended(half) {
        next = Next::Ended;
    } else if next == Next::Message && is_over(half, skb, packet, len) {
        next = Next::Over;
    }
    scratch::let_go(scratch as u32);
    release(half);
    next as i32
}

/// What is said of a stream that is busy, or if there is no memory to work in.
const BUSY: i32 = 0;

/// What comes next in a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing: all of it has been taken.
    Over = 1,
    /// A message is whole in memory.
    Message,
    /// Something is missing before it.
    Early,
    /// A message must not go on.
    Ended,
    /// There is no connection that its bytes belong to.
    Unknown,
    /// The pod has as many connections as are read.
    Full,
}

/// What [`query::note_message`] and [`answer::learn_message`] say of a message that must not go on.
const ENDED: i32 = 2;
const _: () = assert!(query::REFUSED == ENDED && answer::UNREADABLE == ENDED);

/// What [`begins`] says if it does.
const BEGINS: i32 = -1;

/// A function of its own, so that its buffers leave the stack: as a number, and else [`BEGINS`], what [`begin`] says.
#[inline(never)]
fn begins<M: Body>(skb: Skb, subject: &Current, packet: &Packet) -> i32 {
    match begin::<M>(skb, subject, packet) {
        Ok(None) => BEGINS,
        Ok(Some(end)) => end as i32,
        Err(_) => BUSY,
    }
}

/// Begins with the handshake of a connection that the socket opens, and with nothing else: of one that somebody else opened,
/// or that was open before the programs were there, nothing is learned. A socket that was disconnected and connected again
/// begins anew, unless a query was refused on it: that may be on its way to the backstop, which answers it by what is here. Says what
/// the segment comes to where it does not begin.
#[inline(always)]
fn begin<M: Body>(skb: Skb, subject: &Current, packet: &Packet) -> Result<Option<Next>, Refusal> {
    // What is asked for, and what answers that.
    let expected = if M::IS_SENT { TCP_SYN } else { TCP_SYN | TCP_ACK };
    let Some(socket) = skb.socket() else { return Ok(None) };
    // SAFETY: a full socket.
    if packet.tcp_flags & (TCP_SYN | TCP_ACK) != expected || unsafe { (*socket).state } != SYN_SENT {
        return Ok(None);
    }
    let first = sequence(skb, packet);
    let conversation = match storage(socket) {
        Some(known) => known,
        None if !M::IS_SENT => return Ok(None),
        None if has_end(socket) => return Ok(Some(Next::Ended)),
        None => match count::open(socket, subject.pod()) {
            Some(new) => new,
            None => return Ok(Some(Next::Full)),
        },
    };
    let (sent, received) = (QueryStart::half(conversation), Message::half(conversation));
    // A segment of the connection before may still be worked on, on another CPU.
    take_hold(received)?;
    if !M::IS_SENT {
        // SAFETY: claimed by this run.
        unsafe {
            (*received).stream.begin(first);
            (*received).ended = 0;
        }
        release(received);
        return Ok(None);
    }
    let mut begins = take_hold(sent).map(|()| None);
    if begins.is_ok() {
        if has_ended(sent) {
            begins = Ok(Some(Next::Ended));
        } else {
            // SAFETY: both are claimed by this run.
            unsafe {
                (*sent).stream.begin(first);
                (*received).stream = Stream::default();
                (*received).ended = 0;
            }
        }
        release(sent);
    }
    release(received);
    begins
}

#[inline(always)]
fn is_over<M>(half: *mut Half<M>, skb: Skb, packet: &Packet, len: u32) -> bool {
    let sequence = sequence(skb, packet);
    // SAFETY: claimed by this run.
    unsafe { (*half).stream.accept(sequence, len) == Segment::Old }
}

/// Sequence number of a segment's first byte: a SYN itself has one.
#[inline(always)]
fn sequence(skb: Skb, packet: &Packet) -> u32 {
    let syn = u32::from(packet.tcp_flags & TCP_SYN != 0);
    u32::from_be_bytes(skb.read::<4>(packet.transport as usize + SEQUENCE).unwrap_or([0; 4]))
        .wrapping_add(syn)
}

/// Takes bytes of a segment up to the end of a message.
#[inline(always)]
fn segment<M: Body>(skb: Skb, packet: &Packet, half: *mut Half<M>, len: u32) -> Next {
    match take(skb, packet, half, len) {
        0 => Next::Over,
        1 => Next::Message,
        2 => Next::Early,
        _ => Next::Unknown,
    }
}

/// A function of its own, so that its buffers leave the stack.
#[inline(never)]
fn take<M: Body>(skb: Skb, packet: &Packet, half: *mut Half<M>, len: u32) -> i32 {
    // SAFETY: claimed by this run.
    let stream = unsafe { &mut (*half).stream };
    let skip = match stream.accept(sequence(skb, packet), len) {
        Segment::Old => return 0,
        Segment::Early => return 2,
        Segment::Unknown => return 3,
        Segment::New(skip) => skip,
    };
    let at = u32::from(packet.payload) + skip;
    let mut pieces = Pieces { skb, half, at, end: u32::from(packet.payload) + len, complete: 0 };
    // SAFETY: the callback has the type that the kernel calls, and `pieces` outlives the loop.
    unsafe { bpf_loop(PIECES_MAX, piece::<M> as *const () as *mut _, (&raw mut pieces).cast(), 0) };
    stream.advance(pieces.at - at);
    match (pieces.complete, pieces.at < pieces.end) {
        (1, _) => 1,
        // More pieces than are looked at: the rest is for the next time.
        (_, true) => 2,
        (_, false) => 0,
    }
}

struct Pieces<M> {
    skb: Skb,
    half: *mut Half<M>,
    at: u32,
    end: u32,
    complete: u64,
}

extern "C" fn piece<M: Body>(_index: u32, pieces: *mut Pieces<M>) -> i64 {
    // SAFETY: `pieces` is the one of the call above, and its half is claimed.
    unsafe {
        let pieces = &mut *pieces;
        let skb = pieces.skb;
        let half = &mut *pieces.half;
        if pieces.at >= pieces.end {
            return 1;
        }
        match half.stream.piece(pieces.end - pieces.at, M::MAX) {
            Piece::Length => {
                let Some([byte]) = skb.read::<1>(pieces.at as usize) else { return 1 };
                half.stream.length_byte(byte);
                pieces.at += 1;
            }
            Piece::Body { at, keep, take } => {
                half.message.copy(skb, pieces.at, keep, at);
                pieces.at += take;
                if let Some(len) = half.stream.body(take) {
                    half.message.set_len(len);
                    pieces.complete = 1;
                    return 1;
                }
            }
        }
    }
    0
}

#[inline(always)]
fn note(half: *mut Half<QueryStart>, scratch: u32, subject: &Current, packet: &Packet) -> i32 {
    // SAFETY: claimed by this run.
    let query = unsafe { &(*half).message };
    if let Some(scratch) = scratch::claimed(scratch) {
        scratch.set_message(query);
    }
    end_if(half, query::note_message(scratch, subject, &packet.destination, packet.source_port.into()))
}

#[inline(always)]
fn learn(half: *mut Half<Message>, scratch: u32, subject: &Current, packet: &Packet) -> i32 {
    // SAFETY: as above.
    let message = unsafe { &(*half).message };
    end_if(
        half,
        answer::learn_message(scratch, message, subject, &packet.source, packet.destination_port.into()),
    )
}

/// Ends the stream if the message must not go on.
/// That is kept in memory, not returned: the verifier would follow each result through all that comes behind.
#[inline(always)]
fn end_if<M>(half: *mut Half<M>, said: i32) -> i32 {
    // SAFETY: claimed by this run.
    unsafe { (*half).ended |= (said & ENDED) as u64 };
    0
}
