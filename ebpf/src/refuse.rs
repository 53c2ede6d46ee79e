//! Refused queries are answered on the host's side of the pod's interface: whoever asked need not wait for a timeout. Over
//! TCP the answer ends the connection, as nothing on it may go on.

use aya_ebpf::helpers::bpf_loop;
use l7egg_ebpf_common::abi::{Counter, protocol};
use l7egg_ebpf_common::answer::{HEADER, Message};
use l7egg_ebpf_common::packet::{Bytes, Packet, TCP_FIN, TCP_SYN};
use l7egg_ebpf_common::refusal::{self, ANSWER_MAX, Reply, TCP, WORDS, WordSum};

use crate::query::{self, Question};
use crate::scratch::{self, Scratch};
use crate::skb::Frame;
use crate::subject::Current;
use crate::{Refusal, event, stream};

/// Bytes of a UDP header.
const UDP: u32 = 8;
/// Offset of the sequence and acknowledgement numbers in the TCP header (RFC 9293 §3.1).
const SEQUENCE: usize = 4;

/// What becomes of a frame to a name server.
pub enum Said {
    /// It may pass.
    Pass,
    /// It was made the answer, and goes back.
    Answer,
    /// It is of a connection that was ended so, and goes nowhere.
    Nothing,
}

/// Looks at a packet to one of the pod's resolvers, where the policy refuses names.
#[inline(always)]
pub fn judge(frame: Frame, subject: &Current, packet: &Packet) -> Result<Said, Refusal> {
    let said = match packet.protocol {
        protocol::UDP => refuse_datagram(frame, subject, packet),
        _ => refuse_segment(frame, subject, packet),
    };
    match said {
        PASS => Ok(Said::Pass),
        ANSWER => Ok(Said::Answer),
        NOTHING => Ok(Said::Nothing),
        _ => Err(Refusal::Query),
    }
}

const DROP: i32 = 0;
const PASS: i32 = 1;
const ANSWER: i32 = 2;
const NOTHING: i32 = 3;

crate::global! {
    fn refuse_datagram(frame: Frame, subject: &Current, packet: &Packet) -> i32 {
        let (at, len) = (frame.offset(packet.payload), query::beginning(packet));
        // Several at once, or pages that the pod can still write to: what goes on has to be what is read here.
        if frame.as_skb().is_several() || !frame.own(at + len) {
            return DROP;
        }
        scratch::with_payload(frame.as_skb(), at, len, Counter::QueriesUnreadable, |scratch, _| {
            match query::question(scratch, subject.policy) {
                Question::Other => PASS,
                Question::Unreadable => DROP,
                Question::Refused(end, search) => answer(frame, packet, scratch, subject.policy, search, end),
            }
        })
    }
}

#[inline(always)]
fn answer(frame: Frame, packet: &Packet, scratch: &mut Scratch, policy: u32, search: u32, end: u32) -> i32 {
    answer_datagram(frame, packet, scratch.index, query::refusal(policy, search) as u32, end)
}

crate::global! {
    /// Makes a query the answer to it. `end` is what [`Question::Refused`] says.
    fn answer_datagram(frame: Frame, packet: &Packet, scratch: u32, rcode: u32, end: u32) -> i32 {
        let Some(scratch) = scratch::claimed(scratch) else { return DROP };
        let header = refusal::header(&scratch.message, rcode as u8);
        scratch.message.bytes[..HEADER as usize].copy_from_slice(&header);
        let words = if frame.is_v4() { 0 } else { sum(&scratch.message, end) as u32 };
        let checksum = if frame.is_v4() { 0 } else { refusal::udp_checksum(packet, end, words) };
        let ([to, to_low], [from, from_low]) =
            (packet.source_port.to_be_bytes(), packet.destination_port.to_be_bytes());
        let ([len, len_low], [sum, sum_low]) = (((end + UDP) as u16).to_be_bytes(), checksum.to_be_bytes());
        let udp = [from, from_low, to, to_low, len, len_low, sum, sum_low];
        let is_answer = frame.turn(packet.transport, end + UDP)
            && frame.write(packet.transport, &udp)
            && frame.write(packet.payload, &header);
        if is_answer { ANSWER } else { DROP }
    }
}

crate::global! {
    /// As [`WordSum`] of the first `len` bytes.
    fn sum(message: &Message, len: u32) -> i32 {
        let mut sum = Sum { words: WordSum::new(len), message };
        // SAFETY: the callback has the type that the kernel calls, and `sum` outlives the loop.
        unsafe { bpf_loop(WORDS, add_word as *const () as *mut _, (&raw mut sum).cast(), 0) };
        sum.words.finish() as i32
    }
}

struct Sum {
    words: WordSum,
    message: *const Message,
}

extern "C" fn add_word(index: u32, sum: *mut Sum) -> i64 {
    // SAFETY: `sum` is the one of the call above, and its message is claimed.
    unsafe { i64::from(!(*sum).words.step(&*(*sum).message, index)) }
}

crate::global! {
    fn refuse_segment(frame: Frame, subject: &Current, packet: &Packet) -> i32 {
        let len = payload(frame, packet);
        let Some(socket) = frame.socket() else {
            // The kernel's own resets have none; what else has none does not come from a socket.
            return if len == 0 { PASS } else { DROP };
        };
        let query = stream::last_query(socket);
        if query.is_none() && !stream::has_end(socket) {
            // What was made a segment to a resolver behind the pod's programs, they have not read.
            let is_read = len == 0 || stream::has_read(socket, sequence_of(frame, packet), len);
            return if is_read { PASS } else { DROP };
        }
        // It has what it was answered, or gives up; the server knows of neither.
        if len == 0 && packet.tcp_flags & (TCP_SYN | TCP_FIN) == 0 {
            return NOTHING;
        }
        let Some([sequence, acknowledged]) = frame.words::<2>(packet.transport as usize + SEQUENCE) else {
            return DROP;
        };
        let (sequence, acknowledged) = (u32::from_be(sequence), u32::from_be(acknowledged));
        if let Some(query) = query
            && len != 0
            && query.is_in(sequence)
        {
            let policy = subject.policy;
            let said = scratch::with(|scratch| {
                scratch.set_message(query.message());
                Ok(match query::question(scratch, policy) {
                    Question::Refused(end, search) => {
                        let rcode = query::refusal(policy, search) as u32;
                        answer_segment(frame, packet, scratch.index, rcode, end)
                    }
                    _ => NOTHING,
                })
            });
            match said {
                Ok(NOTHING) => {}
                Ok(said) => return said,
                Err(_) => return DROP,
            }
        }
        let syn = u32::from(packet.tcp_flags & TCP_SYN != 0);
        let reset = Reply::reset(sequence, acknowledged, len + syn).header(packet);
        let is_answer = frame.turn(packet.transport, TCP as u32) && frame.write(packet.transport, &reset);
        if is_answer { ANSWER } else { DROP }
    }
}

crate::global! {
    /// Makes the last segment of a query the answer to it, which is the message of a claimed scratch.
    fn answer_segment(frame: Frame, packet: &Packet, scratch: u32, rcode: u32, end: u32) -> i32 {
        let Some(scratch) = scratch::claimed(scratch) else { return DROP };
        let header = refusal::header(&scratch.message, rcode as u8);
        scratch.message.bytes[..HEADER as usize].copy_from_slice(&header);
        let words = sum(&scratch.message, end) as u32;
        let Some([sequence, acknowledged]) = frame.words::<2>(packet.transport as usize + SEQUENCE) else {
            return DROP;
        };
        let (sequence, acknowledged) = (u32::from_be(sequence), u32::from_be(acknowledged));
        let taken = payload(frame, packet);
        let reply = Reply::answer(sequence, acknowledged, taken, packet.tcp_flags, end, words);
        let header = reply.header(packet);
        let at = packet.transport + TCP as u16;
        // As long as an answer can be, so that it is written at once, and then as long as it is.
        let Some(answer) = scratch.message.bytes.first_chunk::<ANSWER_MAX>() else { return DROP };
        let is_answer = frame.set_len(at, 2 + ANSWER_MAX as u32)
            && frame.write(packet.transport, &header)
            && frame.write(at, &(end as u16).to_be_bytes())
            && frame.write(at + 2, answer)
            && frame.turn(packet.transport, TCP as u32 + 2 + end);
        if is_answer { ANSWER } else { DROP }
    }
}

#[inline(always)]
fn sequence_of(frame: Frame, packet: &Packet) -> u32 {
    frame.words::<1>(packet.transport as usize + SEQUENCE).map_or(0, |[sequence]| u32::from_be(sequence))
}

/// Bytes behind the TCP header.
#[inline(always)]
fn payload(frame: Frame, packet: &Packet) -> u32 {
    (frame.len() as u32).wrapping_sub(packet.payload.into())
}

/// Counts it, and sends it back.
#[inline(always)]
pub fn send(frame: Frame) -> i32 {
    event::count(Counter::QueriesRefused);
    frame.send_back()
}
