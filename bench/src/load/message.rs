//! The few DNS messages that are needed (RFC 1035 §4.1), written by hand: a library would take longer than the
//! kernel does.

use std::net::Ipv4Addr;

use super::{DOMAIN, FIRST, NAMES};

/// Bytes of the longest message here.
pub const MESSAGE_MAX: usize = 128;

const HEADER: usize = 12;

/// Types of records: an address of IPv4, and of IPv6.
pub const A: u8 = 1;
/// See there.
pub const AAAA: u8 = 28;

/// Writes the question for the records of a type of name `index`, `n<index>.fresh.test`; its length.
pub fn query(message: &mut [u8; MESSAGE_MAX], id: u16, index: u32, kind: u8) -> usize {
    message[..HEADER].copy_from_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message[..2].copy_from_slice(&id.to_be_bytes());
    let mut at = HEADER;
    let mut digits = [0; 10];
    let mut first = digits.len();
    let mut rest = index;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let mut push = |bytes: &[u8]| {
        message[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    push(&[1 + (digits.len() - first) as u8, b'n']);
    push(&digits[first..]);
    for label in DOMAIN.split('.') {
        push(&[label.len() as u8]);
        push(label.as_bytes());
    }
    push(&[0, 0, kind, 0, 1]);
    at
}

/// Turns a question of `len` bytes into its answer, whose length is returned; 0 if it is none.
pub fn answer(message: &mut [u8; MESSAGE_MAX], len: usize) -> usize {
    let Some((end, index)) = question(&message[..len]) else { return 0 };
    // An answer, authoritative, recursion available; one question, nothing behind it (not even EDNS).
    message[2] = 0x84 | message[2] & 1;
    message[3] = 0x80;
    message[6..HEADER].fill(0);
    let is_a = message[end - 4..end] == [0, A, 0, 1];
    let Some(address) = index.and_then(nth).filter(|_| is_a) else { return end };
    message[7] = 1;
    message[end..end + 12].copy_from_slice(&[0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    message[end + 12..end + 16].copy_from_slice(&address.octets());
    end + 16
}

/// The address in an answer to the question of this length, if the IDs fit.
pub fn address_of(message: &[u8], id: u16, question_len: usize) -> Option<Ipv4Addr> {
    if message.len() < question_len + 16 || message[..2] != id.to_be_bytes() || message[7] == 0 {
        return None;
    }
    message[question_len + 12..].first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets))
}

/// The end of the question and the index in its name.
fn question(message: &[u8]) -> Option<(usize, Option<u32>)> {
    let first = usize::from(*message.get(HEADER)?);
    let digits = message.get(HEADER + 2..HEADER + 1 + first)?;
    let index = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    let mut at = HEADER;
    while *message.get(at)? != 0 {
        at += usize::from(message[at]) + 1;
    }
    let end = at + 5;
    (end <= message.len() && end + 16 <= MESSAGE_MAX).then_some((end, index))
}

fn nth(index: u32) -> Option<Ipv4Addr> {
    (index < NAMES).then(|| Ipv4Addr::from(FIRST + index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_and_its_answer() {
        let mut message = [0; MESSAGE_MAX];
        let asked = query(&mut message, 7, 4711, A);
        assert!(message[..asked].windows(6).any(|part| part == b"\x05n4711"));
        let answered = answer(&mut message, asked);
        assert_eq!(address_of(&message[..answered], 7, asked), Some(Ipv4Addr::from(FIRST + 4711)));
        assert_eq!(address_of(&message[..answered], 8, asked), None);
    }

    #[test]
    fn there_is_no_address_of_ipv6() {
        let mut message = [0; MESSAGE_MAX];
        let asked = query(&mut message, 7, 4711, AAAA);
        let answered = answer(&mut message, asked);
        assert_eq!((answered, message[7]), (asked, 0));
    }

    #[test]
    fn rubbish_has_no_answer() {
        let mut message = [0xff; MESSAGE_MAX];
        assert_eq!(answer(&mut message, 20), 0);
        assert_eq!(answer(&mut message, 0), 0);
    }
}
