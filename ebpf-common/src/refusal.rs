//! The answer to a query that is refused, made of the query's own bytes: its header and question (RFC 1035 §4.1).
//!
//! Over TCP it ends the connection: what was sent behind such a query does not go on either.

use crate::abi::Address;
use crate::answer::{HEADER, Message};
use crate::packet::{Packet, TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST};

/// Bytes of a question and its header at most, 12 bytes, a name of 255, type and class; and one to make it even.
pub const ANSWER_MAX: usize = 12 + 255 + 4 + 1;
/// Words of 16 bits in them.
pub const WORDS: u32 = ANSWER_MAX as u32 / 2;

/// Bytes of a TCP header without options.
pub const TCP: usize = 20;

/// RD and the opcode of the query stay (RFC 1035 §4.1.1).
const KEPT: u8 = 0b0111_1001;
const IS_ANSWER: u8 = 0b1000_0000;
/// RA: whoever asked wants recursion, and would go on to complain of the server otherwise.
const RECURSION_AVAILABLE: u8 = 0b1000_0000;

/// The first 12 bytes of the answer with this response code. Whatever else the query had is not in it, so the
/// numbers of records are zero.
#[inline(always)]
pub fn header(query: &Message, rcode: u8) -> [u8; HEADER as usize] {
    let [id, low, flags, _, questions, question, ..] = query.bytes;
    [
        id,
        low,
        flags & KEPT | IS_ANSWER,
        RECURSION_AVAILABLE | rcode & 15,
        questions,
        question,
        0,
        0,
        0,
        0,
        0,
        0,
    ]
}

/// Sum of the 16-bit words of a pseudo-header (RFC 768, RFC 8200 §8.1), whichever address is the source. The prefix of a
/// mapped address is words of ones, which add nothing to a sum (RFC 1071 §1).
#[inline(always)]
pub fn pseudo_header(source: &Address, destination: &Address, protocol: u8, len: u32) -> u32 {
    let mut sum = u32::from(protocol) + len;
    let mut i = 0;
    while i < 4 {
        for word in [source.words()[i], destination.words()[i]] {
            let word = u32::from_be(word);
            sum += (word >> 16) + (word & 0xffff);
        }
        i += 1;
    }
    sum
}

/// Walk over an answer for the sum of its words.
#[derive(Clone, Copy, Debug)]
pub struct WordSum {
    sum: u32,
    len: u32,
}

impl WordSum {
    /// Of the first `len` bytes.
    #[inline(always)]
    pub fn new(len: u32) -> Self {
        Self { sum: 0, len }
    }

    /// Adds a word of the answer; false if it has no such word. Of [`WORDS`] there is one step each.
    #[inline(always)]
    pub fn step(&mut self, message: &Message, word: u32) -> bool {
        let at = word * 2;
        if at >= self.len {
            return false;
        }
        let high = message.byte(at).unwrap_or(0);
        let low = if at + 1 < self.len { message.byte(at + 1).unwrap_or(0) } else { 0 };
        self.sum += u32::from(u16::from_be_bytes([high, low]));
        true
    }

    /// The sum when all words are added.
    #[inline(always)]
    pub fn finish(&self) -> u32 {
        self.sum
    }
}

/// The UDP checksum of the answer to `packet`, `len` bytes with this [`WordSum`]. Needed over IPv6 only.
#[inline(always)]
pub fn udp_checksum(packet: &Packet, len: u32, words: u32) -> u16 {
    let udp_len = len + 8;
    let pseudo = pseudo_header(&packet.source, &packet.destination, crate::abi::protocol::UDP, udp_len);
    let ports = u32::from(packet.source_port) + u32::from(packet.destination_port);
    match fold(pseudo + ports + udp_len + words) {
        // Zero would say that there is none.
        0 => 0xffff,
        sum => sum,
    }
}

/// A segment that answers another one.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// Its sequence number: what the other side has acknowledged.
    pub sequence: u32,
    /// What it acknowledges.
    pub acknowledged: u32,
    /// TCP flags.
    pub flags: u8,
    /// Bytes behind its header.
    pub len: u32,
    /// Sum of their words.
    pub words: u32,
}

impl Reply {
    /// The reset that answers a segment with `len` bytes of payload, a SYN being one more (RFC 9293 §3.10.7.1).
    #[inline(always)]
    pub fn reset(sequence: u32, acknowledged: u32, len: u32) -> Self {
        let flags = TCP_RST | TCP_ACK;
        Self { sequence: acknowledged, acknowledged: sequence.wrapping_add(len), flags, len: 0, words: 0 }
    }

    /// The answer, of `len` bytes with this [`WordSum`], to a query whose last segment had `taken` bytes of payload and these
    /// flags. Nothing comes behind it.
    #[inline(always)]
    pub fn answer(sequence: u32, acknowledged: u32, taken: u32, flags: u8, len: u32, words: u32) -> Self {
        let fin = u32::from(flags & TCP_FIN != 0);
        Self {
            sequence: acknowledged,
            acknowledged: sequence.wrapping_add(taken).wrapping_add(fin),
            flags: TCP_PSH | TCP_ACK | TCP_FIN,
            // Each message has its length before it (RFC 1035 §4.2.2).
            len: len + 2,
            words: words + len,
        }
    }

    /// Its header, without options, where `packet` is what it answers.
    #[inline(always)]
    pub fn header(&self, packet: &Packet) -> [u8; TCP] {
        let [s0, s1, s2, s3] = self.sequence.to_be_bytes();
        let [a0, a1, a2, a3] = self.acknowledged.to_be_bytes();
        let [from, from_low] = packet.destination_port.to_be_bytes();
        let [to, to_low] = packet.source_port.to_be_bytes();
        // A window, so that the other side may end the connection.
        let mut header = [
            from,
            from_low,
            to,
            to_low,
            s0,
            s1,
            s2,
            s3,
            a0,
            a1,
            a2,
            a3,
            5 << 4,
            self.flags,
            1,
            0,
            0,
            0,
            0,
            0,
        ];
        let len = TCP as u32 + self.len;
        let mut sum = pseudo_header(&packet.source, &packet.destination, crate::abi::protocol::TCP, len);
        let mut i = 0;
        while i < TCP {
            sum += u32::from(u16::from_be_bytes([header[i], header[i + 1]]));
            i += 2;
        }
        let [high, low] = fold(sum + self.words).to_be_bytes();
        (header[16], header[17]) = (high, low);
        header
    }
}

/// RFC 1071 §1.
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Address, protocol};

    /// A query for example.com, A, with an OPT record.
    const QUERY: &[u8] =
        b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x07example\x03com\0\0\x01\0\x01\0\0\x29\x10\0\0\0\0\0\0\0";

    #[test]
    fn the_answer_has_the_question_and_the_code() {
        let message = Message::new(QUERY).unwrap();
        assert_eq!(header(&message, 5), *b"\x12\x34\x81\x85\0\x01\0\0\0\0\0\0");
        assert_eq!(header(&message, 3)[3], 0x83);
    }

    /// Over all that is summed, the checksum included, the sum is zero.
    fn verifies(packet: &Packet, protocol: u8, transport: &[u8]) -> bool {
        let pseudo = pseudo_header(&packet.source, &packet.destination, protocol, transport.len() as u32);
        let words =
            transport.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
        fold(pseudo + words.sum::<u32>()) == 0
    }

    fn words(message: &Message, len: u32) -> u32 {
        let mut sum = WordSum::new(len);
        (0..WORDS).for_each(|word| {
            sum.step(message, word);
        });
        sum.finish()
    }

    fn packet() -> Packet {
        let mut packet = Packet { source_port: 40_000, destination_port: 53, ..Packet::default() };
        packet.source = Address::from_bytes([0x20; 16]);
        packet.destination = Address::from_bytes([0xfd; 16]);
        packet
    }

    #[test]
    fn checksums_verify() {
        let mut packet = packet();
        let message = Message::new(QUERY).unwrap();
        for len in [12, 28, 29] {
            let sum = words(&message, len);
            let mut udp = vec![0, 53, 0x9c, 0x40, 0, 8 + len as u8];
            udp.extend(udp_checksum(&packet, len, sum).to_be_bytes());
            udp.extend(&QUERY[..len as usize]);
            assert!(verifies(&packet, protocol::UDP, &udp), "{len} bytes");
            let answer = Reply::answer(7, u32::MAX, 40, TCP_PSH | TCP_ACK, len, sum);
            let tcp = [&answer.header(&packet), &[0, len as u8][..], &QUERY[..len as usize]].concat();
            assert!(verifies(&packet, protocol::TCP, &tcp), "{len} bytes");
        }
        assert!(verifies(&packet, protocol::TCP, &Reply::reset(7, u32::MAX, 40).header(&packet)));
        (packet.source, packet.destination) =
            (Address::mapped([10, 0, 0, 7]), Address::mapped([10, 96, 0, 10]));
        let reset = Reply::reset(u32::MAX, 9, 40).header(&packet);
        assert!(verifies(&packet, protocol::TCP, &reset));
        assert_eq!(reset[..14], [0, 53, 0x9c, 0x40, 0, 0, 0, 9, 0, 0, 0, 39, 0x50, 0x14]);
    }

    #[test]
    fn an_answer_acknowledges_the_end_of_the_other_side_too() {
        let answer = Reply::answer(100, 900, 40, TCP_PSH | TCP_ACK | TCP_FIN, 28, 0).header(&packet());
        assert_eq!(answer[4..14], [0, 0, 3, 0x84, 0, 0, 0, 141, 0x50, 0x19]);
    }
}
