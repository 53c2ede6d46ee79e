//! DNS over TCP: whatever a stream is cut into, and whatever comes twice or too early, the messages are those
//! that its bytes say.
//!
//! The first byte says how many bytes describe the segments; the rest is the stream.

#![no_main]

use l7egg_ebpf_common::answer::MESSAGE_MAX;
use l7egg_ebpf_common::stream::{PIECES_MAX, Piece, Segment, Stream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [cuts, rest @ ..] = input else { return };
    let Some((cuts, bytes)) = rest.split_at_checked(usize::from(*cuts)) else { return };
    let mut reader = Reader::default();
    // A sequence number that overflows on the way (RFC 9293 §3.4).
    let first = u32::MAX - 700;
    reader.stream.begin(first);
    let mut at = 0;
    for cut in cuts {
        // Seven bits of length; the eighth sends it twice, and once too early.
        let len = usize::from(cut & 0x7f).min(bytes.len() - at);
        let again = cut & 0x80 != 0;
        if again && len > 0 && at + len < bytes.len() {
            reader.segment(first.wrapping_add((at + len) as u32), &bytes[at + len..], true);
        }
        for _ in 0..=usize::from(again) {
            reader.segment(first.wrapping_add(at as u32), &bytes[at..at + len], false);
        }
        at += len;
    }
    reader.segment(first.wrapping_add(at as u32), &bytes[at..], false);
    assert_eq!(reader.messages, messages(bytes));
});

#[derive(Default)]
struct Reader {
    stream: Stream,
    message: Vec<u8>,
    messages: Vec<Vec<u8>>,
}

impl Reader {
    /// Takes a segment as the kernel programs do: a number of pieces, then its sender has to repeat it.
    fn segment(&mut self, sequence: u32, bytes: &[u8], early: bool) {
        self.message.resize(MESSAGE_MAX, 0);
        let len = bytes.len() as u32;
        if len == 0 {
            return;
        }
        loop {
            let skip = match self.stream.accept(sequence, len) {
                Segment::Old => return,
                Segment::Early => {
                    assert!(early, "nothing before it is missing");
                    return;
                }
                Segment::New(skip) => skip,
                Segment::Unknown => panic!("it has begun"),
            };
            assert!(!early, "something before it is missing");
            self.pieces(&bytes[skip as usize..]);
        }
    }

    fn pieces(&mut self, bytes: &[u8]) {
        let mut at = 0;
        for _ in 0..PIECES_MAX {
            let left = &bytes[at..];
            if left.is_empty() {
                break;
            }
            match self.stream.piece(left.len() as u32, MESSAGE_MAX as u32) {
                Piece::Length => {
                    self.stream.length_byte(left[0]);
                    at += 1;
                }
                Piece::Body { at: to, keep, take } => {
                    assert!(take > 0 && keep <= take && take as usize <= left.len());
                    self.message[to as usize..(to + keep) as usize].copy_from_slice(&left[..keep as usize]);
                    at += take as usize;
                    if let Some(len) = self.stream.body(take) {
                        self.messages.push(self.message[..MESSAGE_MAX.min(len as usize)].to_vec());
                        break;
                    }
                }
            }
        }
        assert!(at > 0, "a segment always gets on");
        self.stream.advance(at as u32);
    }
}

/// RFC 7766 §8: two bytes of length before each. Empty ones are none; of a long one the beginning is kept.
fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((message, rest)) = rest.split_at_checked(len) else { break };
        if !message.is_empty() {
            messages.push(message[..len.min(MESSAGE_MAX)].to_vec());
        }
        bytes = rest;
    }
    messages
}
