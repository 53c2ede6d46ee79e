//! The answer to a query that is refused, made of the query's own bytes: its header and question (RFC 1035 §4.1).
//!
//! And the reset to a DNS connection over TCP on which such a query was sent.

use crate::abi::Address;
use crate::answer::{HEADER, Message};
use crate::packet::Packet;

/// Words of a question and its header at most: 12 bytes, a name of 255, type and class.
pub const WORDS: u32 = (12u32 + 255 + 4).div_ceil(2);

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

/// Walk over an answer for its UDP checksum over IPv6. IPv4 does without.
#[derive(Clone, Copy, Debug)]
pub struct UdpChecksum {
    sum: u32,
    len: u32,
}

impl UdpChecksum {
    /// Of the answer to `packet` that is `len` bytes long: at most a header and a question.
    #[inline(always)]
    pub fn new(packet: &Packet, len: u32) -> Self {
        let udp_len = len + 8;
        let mut sum = pseudo_header(&packet.source, &packet.destination, crate::abi::protocol::UDP, udp_len);
        sum += u32::from(packet.source_port) + u32::from(packet.destination_port) + udp_len;
        Self { sum, len }
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

    /// The checksum when all words are added.
    #[inline(always)]
    pub fn finish(&self) -> u16 {
        match fold(self.sum) {
            // Zero would say that there is none.
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// The TCP header of the reset that answers a segment with `len` bytes of payload (RFC 9293 §3.10.7.1).
#[inline(always)]
pub fn reset(packet: &Packet, sequence: u32, acknowledged: u32, len: u32) -> [u8; TCP] {
    const RST_ACK: u8 = 0x14;
    let [s0, s1, s2, s3] = acknowledged.to_be_bytes();
    let [a0, a1, a2, a3] = sequence.wrapping_add(len).to_be_bytes();
    let [from, from_low] = packet.destination_port.to_be_bytes();
    let [to, to_low] = packet.source_port.to_be_bytes();
    let mut header =
        [from, from_low, to, to_low, s0, s1, s2, s3, a0, a1, a2, a3, 5 << 4, RST_ACK, 0, 0, 0, 0, 0, 0];
    let mut sum = pseudo_header(&packet.source, &packet.destination, crate::abi::protocol::TCP, TCP as u32);
    let mut i = 0;
    while i < TCP {
        sum += u32::from(u16::from_be_bytes([header[i], header[i + 1]]));
        i += 2;
    }
    let [high, low] = fold(sum).to_be_bytes();
    (header[16], header[17]) = (high, low);
    header
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

    #[test]
    fn checksums_verify() {
        let mut packet = Packet { source_port: 40_000, destination_port: 53, ..Packet::default() };
        packet.source = Address::from_bytes([0x20; 16]);
        packet.destination = Address::from_bytes([0xfd; 16]);
        let message = Message::new(QUERY).unwrap();
        for len in [12, 28, 29] {
            let mut udp = vec![0, 53, 0x9c, 0x40, 0, 8 + len as u8];
            let mut checksum = UdpChecksum::new(&packet, len);
            (0..WORDS).for_each(|word| {
                checksum.step(&message, word);
            });
            udp.extend(checksum.finish().to_be_bytes());
            udp.extend(&QUERY[..len as usize]);
            assert!(verifies(&packet, protocol::UDP, &udp), "{len} bytes");
        }
        assert!(verifies(&packet, protocol::TCP, &reset(&packet, 7, u32::MAX, 40)));
        (packet.source, packet.destination) = (Address::mapped([10, 0, 0, 7]), Address::mapped([10, 96, 0, 10]));
        let reset = reset(&packet, u32::MAX, 9, 40);
        assert!(verifies(&packet, protocol::TCP, &reset));
        assert_eq!(reset[..14], [0, 53, 0x9c, 0x40, 0, 0, 0, 9, 0, 0, 0, 39, 0x50, 0x14]);
    }
}
