//! Refused queries are answered, and connections on which one was sent are reset, on the host's side of the pod's
//! interface: whoever asked need not wait for a timeout.

use aya_ebpf::helpers::bpf_loop;
use l7egg_ebpf_common::abi::{Counter, protocol};
use l7egg_ebpf_common::answer::{HEADER, Message};
use l7egg_ebpf_common::packet::{Bytes, Packet};
use l7egg_ebpf_common::refusal::{self, UdpChecksum, WORDS};

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
}

/// Looks at a packet to one of the pod's resolvers, where the policy refuses names.
#[inline(always)]
pub fn judge(frame: Frame, subject: &Current, packet: &Packet) -> Result<Said, Refusal> {
    let said = match packet.protocol {
        protocol::UDP => refuse_datagram(frame, subject, packet),
        _ => refuse_segment(frame, packet),
    };
    match said {
        PASS => Ok(Said::Pass),
        ANSWER => Ok(Said::Answer),
        _ => Err(Refusal::Query),
    }
}

const DROP: i32 = 0;
const PASS: i32 = 1;
const ANSWER: i32 = 2;

crate::global! {
    fn refuse_datagram(frame: Frame, subject: &Current, packet: &Packet) -> i32 {
        let (at, len) = (frame.offset(packet.payload), query::beginning(packet));
        scratch::with_payload(frame.as_skb(), at, len, Counter::QueriesUnreadable, |scratch, _| {
            match query::question(scratch, subject.policy) {
                Question::Other => PASS,
                Question::Unreadable => DROP,
                Question::Refused(end) => answer(frame, packet, scratch, subject.policy, end),
            }
        })
    }
}

#[inline(always)]
fn answer(frame: Frame, packet: &Packet, scratch: &mut Scratch, policy: u32, end: u32) -> i32 {
    answer_datagram(frame, packet, scratch.index, query::refusal(policy) as u32, end)
}

crate::global! {
    /// Makes a query the answer to it. `end` is what [`Question::Refused`] says.
    fn answer_datagram(frame: Frame, packet: &Packet, scratch: u32, rcode: u32, end: u32) -> i32 {
        let Some(scratch) = scratch::claimed(scratch) else { return DROP };
        let header = refusal::header(&scratch.message, rcode as u8);
        scratch.message.bytes[..HEADER as usize].copy_from_slice(&header);
        let checksum = if frame.is_v4() { 0 } else { checksum(packet, &scratch.message, end) as u16 };
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
    fn checksum(packet: &Packet, message: &Message, len: u32) -> i32 {
        let mut sum = Sum { checksum: UdpChecksum::new(packet, len), message };
        // SAFETY: the callback has the type that the kernel calls, and `sum` outlives the loop.
        unsafe { bpf_loop(WORDS, add_word as *const () as *mut _, (&raw mut sum).cast(), 0) };
        sum.checksum.finish().into()
    }
}

struct Sum {
    checksum: UdpChecksum,
    message: *const Message,
}

extern "C" fn add_word(index: u32, sum: *mut Sum) -> i64 {
    // SAFETY: `sum` is the one of the call above, and its message is claimed.
    unsafe { i64::from(!(*sum).checksum.step(&*(*sum).message, index)) }
}

crate::global! {
    fn refuse_segment(frame: Frame, packet: &Packet) -> i32 {
        let len = (frame.len() as u32).wrapping_sub(packet.payload.into());
        let Some(socket) = frame.socket() else {
            // The kernel's own resets have none; what else has none does not come from a socket.
            return if len == 0 { PASS } else { DROP };
        };
        if !stream::has_ended(socket) {
            return PASS;
        }
        let numbers = frame.read::<8>(packet.transport as usize + SEQUENCE);
        let Some([s0, s1, s2, s3, a0, a1, a2, a3]) = numbers else { return DROP };
        let (sequence, acknowledged) = (u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([a0, a1, a2, a3]));
        let reset = refusal::reset(packet, sequence, acknowledged, len);
        let is_answer =
            frame.turn(packet.transport, refusal::TCP as u32) && frame.write(packet.transport, &reset);
        if is_answer { ANSWER } else { DROP }
    }
}

/// Counts it, and sends it back.
#[inline(always)]
pub fn send(frame: Frame) -> i32 {
    event::count(Counter::QueriesRefused);
    frame.send_back()
}
