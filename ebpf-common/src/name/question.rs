//! The question that was read last, to know it again: a name is asked for A and AAAA, and the answers repeat it.

use crate::answer::{HEADER, MESSAGE_MAX, Message};

/// Words of a name that is kept. Few are longer.
const WORDS: usize = 16;

/// A question's name as it is in its message (RFC 1035 §4.1.2), root label included.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Question {
    words: [u32; WORDS],
    /// Its bytes; 0 where none is kept.
    len: u32,
    /// The policy that has judged it, or 0.
    policy: u32,
}

impl Question {
    /// None.
    pub const NONE: Self = Self { words: [0; WORDS], len: 0, policy: 0 };

    /// Keeps the name between the header and `end`, if it is not too long, as judged by a policy or by none (0).
    #[inline(always)]
    pub fn keep(&mut self, message: &Message, end: u32, policy: u32) {
        let len = end.wrapping_sub(HEADER);
        if len > (WORDS * 4) as u32 {
            return;
        }
        let mut i = 0;
        while i < WORDS {
            self.words[i] = word(message, i);
            i += 1;
        }
        self.len = len;
        self.policy = policy;
    }

    /// Keeps none.
    #[inline(always)]
    pub fn forget(&mut self) {
        self.len = 0;
    }

    /// Whether a message has the same.
    #[inline(always)]
    pub fn is_of(&self, message: &Message) -> bool {
        let len = self.len;
        if len == 0 || message.len < HEADER + len {
            return false;
        }
        let mut differs = 0;
        let mut i = 0;
        while i < WORDS && (i * 4) < len as usize {
            differs |= (self.words[i] ^ word(message, i)) & counts(len as usize - i * 4);
            i += 1;
        }
        differs == 0
    }

    /// Whether this policy has judged it.
    #[inline(always)]
    pub fn is_judged_by(&self, policy: u32) -> bool {
        self.policy == policy
    }

    /// Where the message goes on behind it.
    #[inline(always)]
    pub fn end(&self) -> u32 {
        HEADER + self.len
    }
}

/// The `i`th word behind the header.
#[inline(always)]
fn word(message: &Message, i: usize) -> u32 {
    const { assert!(HEADER as usize + WORDS * 4 <= MESSAGE_MAX && HEADER.is_multiple_of(4)) };
    let at = HEADER as usize + i * 4;
    let bytes = &message.bytes;
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Those bits of a word, as it is in memory, that belong to the `left` bytes from it on.
#[inline(always)]
fn counts(left: usize) -> u32 {
    match left {
        1 => u32::from_le(0xff),
        2 => u32::from_le(0xffff),
        3 => u32::from_le(0xff_ffff),
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &[u8], behind: &[u8]) -> Message {
        Message::new(&[&[7; HEADER as usize], name, behind].concat()).unwrap()
    }

    fn kept(name: &[u8]) -> Question {
        let mut question = Question::NONE;
        question.keep(&message(name, b"\0\x01\0\x01"), HEADER + name.len() as u32, 5);
        question
    }

    #[test]
    fn a_question_is_known_again_whatever_comes_behind() {
        for len in 1..=64 {
            let name: Vec<u8> = (0..len).map(|byte| byte as u8 + 1).collect();
            let question = kept(&name);
            assert!(question.is_of(&message(&name, b"\0\x1c\0\x01 and more")), "{len} bytes");
            assert!(!question.is_of(&message(&name[..name.len() - 1], b"")), "{len} bytes");
            assert!(question.is_judged_by(5) && !question.is_judged_by(6));
            assert_eq!(question.end(), HEADER + len);
            for index in 0..name.len() {
                let mut other = name.clone();
                other[index] ^= 0x20;
                assert!(!question.is_of(&message(&other, b"\0\x1c\0\x01")), "byte {index} of {len}");
            }
        }
    }

    #[test]
    fn none_is_of_no_message() {
        assert!(!Question::NONE.is_of(&message(b"\0", b"")));
        assert!(!kept(&[1; 65]).is_of(&message(&[1; 65], b"")), "too long to be kept");
        let mut question = kept(b"\x01a\0");
        question.forget();
        assert!(!question.is_of(&message(b"\x01a\0", b"")));
    }
}
