//! Walking the answer section of a DNS message (RFC 1035 §4.1) for addresses.
//!
//! Like names, one small step at a time: a label, or a record's fixed part. What the walk does not
//! understand ends it, and nothing more of the message is believed.

use crate::abi::Address;

/// As much of a message as is read: what compressed names can point into (RFC 1035 §4.1.4). Four times the largest EDNS
/// buffer size in common use (RFC 6891 §6.2.5); over TCP there can be more.
pub const MESSAGE_MAX: usize = 16_384;
/// As much of a query as is kept, more than its question can take.
pub const QUERY_MAX: usize = 512;
/// Bytes of the header.
pub const HEADER: u32 = 12;
/// Steps of [`AnswerWalk::step`] at most: 1,000 addresses whose names are compressed take 3,000.
pub const ANSWER_STEPS: u32 = 4096;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;
const KEY_IPV4HINT: u16 = 4;
const KEY_IPV6HINT: u16 = 6;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// ID, by which an answer finds its query.
    pub id: u16,
    /// QR: it is an answer.
    pub is_answer: bool,
    /// Opcode; 0 is a standard query.
    pub opcode: u8,
    /// TC: there is more than fits.
    pub truncated: bool,
    /// Response code; 0 is no error.
    pub rcode: u8,
    /// Entries of the question section.
    pub questions: u16,
    /// Records of the answer section.
    pub answers: u16,
}

impl Header {
    /// Reads the first 12 bytes.
    #[inline(always)]
    pub fn parse(bytes: &[u8; HEADER as usize]) -> Self {
        Self {
            id: u16::from_be_bytes([bytes[0], bytes[1]]),
            is_answer: bytes[2] & 0x80 != 0,
            opcode: bytes[2] >> 3 & 15,
            truncated: bytes[2] & 2 != 0,
            rcode: bytes[3] & 15,
            questions: u16::from_be_bytes([bytes[4], bytes[5]]),
            answers: u16::from_be_bytes([bytes[6], bytes[7]]),
        }
    }

    /// A query that can be noted: one question, standard.
    #[inline(always)]
    pub fn is_query(&self) -> bool {
        !self.is_answer && self.opcode == 0 && self.questions == 1
    }

    /// An answer that can teach something.
    #[inline(always)]
    pub fn is_usable_answer(&self) -> bool {
        self.is_answer && self.opcode == 0 && self.questions == 1
    }
}

/// A message in memory of fixed size, so that every access is in bounds whatever the offset.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The bytes; what is behind `len` means nothing. A little longer than the longest message, so that it
    /// can be filled in blocks.
    pub bytes: [u8; MESSAGE_MAX + 64],
    /// Bytes in use.
    pub len: u32,
    /// 1 if there were more than [`MESSAGE_MAX`].
    pub cut: u32,
}

/// The beginning of a query, kept until all of it is there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct QueryStart {
    /// The bytes, as in [`Message`].
    pub bytes: [u8; QUERY_MAX + 64],
    /// Bytes in use.
    pub len: u32,
    /// 1 if there were more than [`QUERY_MAX`].
    pub cut: u32,
}

impl Message {
    /// The byte at an offset, `None` behind the end.
    #[inline(always)]
    pub fn byte(&self, at: u32) -> Option<u8> {
        if at >= self.len { None } else { Some(self.bytes[at as usize & (MESSAGE_MAX - 1)]) }
    }

    /// Its header; of no meaning if there are fewer than 12 bytes.
    #[inline(always)]
    pub fn header(&self) -> Header {
        let mut bytes = [0; HEADER as usize];
        for (to, from) in bytes.iter_mut().zip(&self.bytes) {
            *to = *from;
        }
        Header::parse(&bytes)
    }

    #[inline(always)]
    fn u16(&self, at: u32) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte(at)?, self.byte(at.wrapping_add(1))?]))
    }

    /// Four bytes as they are.
    #[inline(always)]
    fn word(&self, at: u32) -> Option<u32> {
        if at >= self.len || self.len - at < 4 {
            return None;
        }
        let at = at as usize & (MESSAGE_MAX - 1);
        let [a, b, c, d] = [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]];
        Some(u32::from_ne_bytes([a, b, c, d]))
    }

    /// A message with these bytes, `None` if they are too many.
    #[cfg(any(feature = "std", test))]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MESSAGE_MAX {
            return None;
        }
        let mut message = Self { bytes: [0; MESSAGE_MAX + 64], len: bytes.len() as u32, cut: 0 };
        message.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(message)
    }
}

/// What a step of the walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: go on.
    More,
    /// An address: [`AnswerWalk::address`] and [`AnswerWalk::ttl_s`], of the name at [`AnswerWalk::owner`].
    Address,
    /// An alias: the name at [`AnswerWalk::target`] stands for the one at [`AnswerWalk::owner`].
    Alias,
    /// The end of the answer section.
    Done,
    /// The message is not what it should be.
    Stop,
}

/// Where in a record the walk is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// At the first label of the owner's name.
    #[default]
    Begin = 0,
    /// At another label of it.
    Owner = 6,
    /// Behind the owner's name.
    Fixed = 1,
    /// At a label of the target's name of a service binding (RFC 9460 §2.2).
    ServiceTarget = 2,
    /// At a parameter of it.
    Parameter = 3,
    /// At an address hint for IPv4.
    Hint4 = 4,
    /// At an address hint for IPv6.
    Hint6 = 5,
}

/// State of the walk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerWalk {
    at: u32,
    records_left: u32,
    place: Place,
    ttl_s: u32,
    owner: u32,
    target: u32,
    /// End of the record.
    end: u32,
    /// End of the address hints.
    hints_end: u32,
    address: Address,
}

impl AnswerWalk {
    /// Begins behind the question's name: its type and class are skipped.
    #[inline(always)]
    pub fn start(&mut self, behind_qname: u32, answers: u16) {
        self.at = behind_qname + 4;
        self.owner = self.at;
        self.records_left = u32::from(answers);
        self.place = Place::Begin;
    }

    /// The address that was found last.
    #[inline(always)]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How long it may be used, in seconds.
    #[inline(always)]
    pub fn ttl_s(&self) -> u32 {
        self.ttl_s
    }

    /// Offset of the name whose record this is; it may be compressed.
    #[inline(always)]
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Offset of the name that an alias stands for; it may be compressed.
    #[inline(always)]
    pub fn target(&self) -> u32 {
        self.target
    }

    /// One label of a name, one parameter or hint, or the rest of a record.
    #[inline(always)]
    pub fn step(&mut self, message: &Message) -> Step {
        let step = match self.place {
            Place::Begin if self.records_left == 0 => Some(Step::Done),
            Place::Begin => {
                self.owner = self.at;
                self.place = Place::Owner;
                self.label(message, Place::Fixed)
            }
            Place::Owner => self.label(message, Place::Fixed),
            Place::Fixed => self.record(message),
            Place::ServiceTarget => self.label(message, Place::Parameter),
            Place::Parameter => self.parameter(message),
            Place::Hint4 | Place::Hint6 => self.hint(message),
        };
        match step {
            Some(step) => step,
            None => Step::Stop,
        }
    }

    /// Skips a label; behind the last one is `next`.
    #[inline(always)]
    fn label(&mut self, message: &Message, next: Place) -> Option<Step> {
        match message.byte(self.at)? {
            0 => {
                self.at += 1;
                self.place = next;
            }
            // A pointer ends the name (RFC 1035 §4.1.4).
            0xc0..=0xff => {
                self.at += 2;
                self.place = next;
            }
            label @ 1..=63 => self.at += u32::from(label) + 1,
            _ => return None,
        }
        Some(Step::More)
    }

    #[inline(always)]
    fn record(&mut self, message: &Message) -> Option<Step> {
        let kind = message.u16(self.at)?;
        let class = message.u16(self.at + 2)?;
        let ttl = u32::from(message.u16(self.at + 4)?) << 16 | u32::from(message.u16(self.at + 6)?);
        let length = u32::from(message.u16(self.at + 8)?);
        let data = self.at + 10;
        self.end = data + length;
        self.records_left -= 1;
        if self.end > message.len {
            return None;
        }
        // RFC 2181 §8: a TTL with the top bit set is 0.
        self.ttl_s = if ttl >> 31 == 1 { 0 } else { ttl };
        if class == CLASS_IN && (kind == TYPE_SVCB || kind == TYPE_HTTPS) {
            // Behind the priority.
            self.at = data + 2;
            self.place = Place::ServiceTarget;
            return Some(Step::More);
        }
        let step = match (kind, class, length) {
            (TYPE_A, CLASS_IN, 4) => self.take4(message, data)?,
            (TYPE_AAAA, CLASS_IN, 16) => self.take6(message, data)?,
            (TYPE_A | TYPE_AAAA, CLASS_IN, _) => return None,
            (TYPE_CNAME, CLASS_IN, _) => {
                self.target = data;
                Step::Alias
            }
            _ => Step::More,
        };
        self.at = self.end;
        self.place = Place::Begin;
        Some(step)
    }

    /// RFC 9460 §2.2 and §7.3: key, length, value; hints are lists of addresses.
    #[inline(always)]
    fn parameter(&mut self, message: &Message) -> Option<Step> {
        if self.at >= self.end {
            self.at = self.end;
            self.place = Place::Begin;
            return Some(Step::More);
        }
        let key = message.u16(self.at)?;
        let value = self.at + 4;
        let value_end = value + u32::from(message.u16(self.at + 2)?);
        if value_end > self.end {
            return None;
        }
        self.hints_end = value_end;
        self.at = value;
        match key {
            KEY_IPV4HINT => self.place = Place::Hint4,
            KEY_IPV6HINT => self.place = Place::Hint6,
            _ => self.at = value_end,
        }
        Some(Step::More)
    }

    #[inline(always)]
    fn hint(&mut self, message: &Message) -> Option<Step> {
        let size = if self.place == Place::Hint4 { 4 } else { 16 };
        if self.at >= self.hints_end {
            self.place = Place::Parameter;
            return Some(Step::More);
        }
        if self.at + size > self.hints_end {
            return None;
        }
        let at = self.at;
        self.at += size;
        if size == 4 { self.take4(message, at) } else { self.take6(message, at) }
    }

    #[inline(always)]
    fn take4(&mut self, message: &Message, at: u32) -> Option<Step> {
        self.address = Address::mapped(message.word(at)?.to_ne_bytes());
        Some(Step::Address)
    }

    #[inline(always)]
    fn take6(&mut self, message: &Message, at: u32) -> Option<Step> {
        let [a, b, c, d] = [at, at + 4, at + 8, at + 12];
        let words = [message.word(a)?, message.word(b)?, message.word(c)?, message.word(d)?];
        self.address = Address::from_words(words);
        Some(Step::Address)
    }
}

/// All addresses of an answer and whether the walk came to its end. What the kernel does in a loop, for user
/// space.
#[cfg(any(feature = "std", test))]
pub fn addresses(message: &Message, behind_qname: u32, answers: u16) -> (Vec<(Address, u32)>, bool) {
    let mut walk = AnswerWalk::default();
    walk.start(behind_qname, answers);
    let mut found = Vec::new();
    for _ in 0..ANSWER_STEPS {
        match walk.step(message) {
            Step::More | Step::Alias => {}
            Step::Address => found.push((walk.address, walk.ttl_s)),
            Step::Done => return (found, true),
            Step::Stop => return (found, false),
        }
    }
    (found, false)
}

#[cfg(test)]
mod tests;
