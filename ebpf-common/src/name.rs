//! Names: reading them from a message, hashing them, and finding the rules that match them.
//!
//! A name is read left to right into its wire form (RFC 1035 §3.1), in lower case and without the root
//! label. It is then hashed right to left, so that the hash of every suffix falls out on the way; each is
//! looked up among the policy's names. Both walks go one byte a step, because the kernel bounds loops by
//! steps; [`NameWalk`] keeps their state where the verifier does not follow it, in map memory.

mod hash;
mod judge;
mod question;

use core::hint::black_box;

pub use hash::{NameHash, hash, hash_key};
pub use judge::{judge_name, may_ask};
pub use question::Question;

use crate::abi::{Masks, NAME_MAX, NameMasks};
use crate::automaton;
use crate::matcher::LabelCounts;

/// Steps that [`NameWalk::read`] needs at most: every byte of the longest name and its root label.
pub const READ_STEPS: u32 = NAME_MAX as u32 + 1;
/// Steps that [`NameWalk::read`] needs at most for a name that may be compressed.
pub const COMPRESSED_STEPS: u32 = READ_STEPS + 2 * POINTERS_MAX;
/// Pointers that are followed in one name. A chain of records needs one for each.
const POINTERS_MAX: u32 = 32;
/// Steps that [`NameWalk::hash`] needs at most.
pub const HASH_STEPS: u32 = NAME_MAX as u32;

/// Search domains that are looked for behind one name. `cluster.local` and what Kubernetes puts before it are
/// three.
pub const SEARCHES_MAX: usize = 4;

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: go on.
    More,
    /// [`NameWalk::hash`] only: the hash of a suffix of as many whole labels as are wanted. Look it up, [`NameWalk::add`] what it
    /// says, go on.
    Suffix(u64),
    /// The end of the name.
    Done,
    /// What was read is no name that a rule could match; see [`Unreadable`].
    Stop,
}

/// Why a name could not be read.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// It could.
    #[default]
    No = 0,
    /// The message ends within it.
    Short = 1,
    /// A label of a kind that has no place here: compressed or reserved (RFC 1035 §4.1.4).
    Label = 2,
    /// Longer than names can be.
    Long = 3,
}

/// State of both walks over one name.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NameWalk {
    hash: NameHash,
    masks: Masks,
    /// Bit `i` of the whole: byte `i` of `wire` is the length of a label.
    label_starts: [u64; 4],
    /// Suffixes of as many labels, from the one that comes next, can be among the policy's names.
    wanted: LabelCounts,
    at: u32,
    left_in_label: u32,
    labels: u32,
    len: u32,
    position: u32,
    unreadable: Unreadable,
    /// A byte occurred that no host name has (RFC 1123 §2.1, and the underscore of RFC 8552).
    odd: u32,
    /// State of the policy's automaton.
    state: u32,
    /// How many more pointers may be followed (RFC 1035 §4.1.4).
    pointers_left: u32,
    /// The first byte of a pointer whose second comes next, with a bit set above it; or 0.
    pointer: u32,
    /// Search domains found behind the name: their number, and 1 while they are looked for.
    searches: u32,
    searching: u32,
    /// Where each begins in `wire`, and how many labels are before it.
    search_at: [u32; SEARCHES_MAX],
    search_labels: [u32; SEARCHES_MAX],
    /// The question that all of this is of.
    question: Question,
    /// At a multiple of eight bytes, because it is copied by words.
    wire: [u8; 256],
}

const _: () = assert!(core::mem::offset_of!(NameWalk, wire).is_multiple_of(8));

impl Default for NameWalk {
    fn default() -> Self {
        Self {
            hash: NameHash::EMPTY,
            masks: Masks::NONE,
            label_starts: [0; 4],
            wanted: LabelCounts::ALL,
            at: 0,
            left_in_label: 0,
            labels: 0,
            len: 0,
            position: 0,
            unreadable: Unreadable::No,
            odd: 0,
            state: 0,
            pointers_left: 0,
            pointer: 0,
            searches: 0,
            searching: 0,
            search_at: [0; SEARCHES_MAX],
            search_labels: [0; SEARCHES_MAX],
            question: Question::NONE,
            wire: [0; 256],
        }
    }
}

impl NameWalk {
    /// Begins to read the name at offset `at` of a message.
    #[inline(always)]
    pub fn start(&mut self, at: u32) {
        self.hash = NameHash::EMPTY;
        self.masks = Masks::NONE;
        self.label_starts = [0; 4];
        self.at = at;
        self.left_in_label = 0;
        self.labels = 0;
        self.len = 0;
        self.position = 0;
        self.unreadable = Unreadable::No;
        self.odd = 0;
        self.pointers_left = 0;
        self.pointer = 0;
        self.searches = 0;
        self.searching = 1;
        self.question.forget();
    }

    /// Begins to read a name that may be compressed, at offset `at` of a message.
    #[inline(always)]
    pub fn start_compressed(&mut self, at: u32) {
        self.start(at);
        self.pointers_left = POINTERS_MAX;
    }

    /// Begins to hash a name that is there already, in wire form.
    pub fn start_wire(&mut self, wire: &[u8]) {
        self.start(0);
        // Reading it as a message finds the labels again.
        let mut padded = [0u8; 256];
        for (to, from) in padded.iter_mut().zip(wire.iter().take(NAME_MAX)) {
            *to = *from;
        }
        for _ in 0..READ_STEPS {
            let next = padded.get(self.offset()).copied();
            if self.read(next) != Step::More {
                break;
            }
        }
        self.rewind(LabelCounts::ALL);
    }

    /// Offset in the message of the next byte that [`Self::read`] wants, and after [`Step::Done`] of the
    /// first byte behind the name.
    #[inline(always)]
    pub fn offset(&self) -> usize {
        self.at as usize
    }

    /// Takes the next byte of the message, `None` where it has ended.
    #[inline(always)]
    pub fn read(&mut self, byte: Option<u8>) -> Step {
        let Some(byte) = byte else { return self.stop(Unreadable::Short) };
        self.at += 1;
        let mut byte = byte;
        if self.pointer != 0 {
            // What it points to was there before: a loop ends when no pointers are left.
            self.at = (self.pointer & 0x3f) << 8 | u32::from(byte);
            self.pointer = 0;
            return Step::More;
        }
        if self.left_in_label == 0 {
            if byte == 0 {
                return Step::Done;
            }
            if byte & 0xc0 == 0xc0 && self.pointers_left > 0 {
                self.pointers_left -= 1;
                self.pointer = 0x100 | u32::from(byte);
                return Step::More;
            }
            if byte & 0xc0 != 0 {
                return self.stop(Unreadable::Label);
            }
            self.left_in_label = u32::from(byte);
            self.labels += 1;
            let word = (self.len >> 6) as usize & 3;
            self.label_starts[word] |= 1 << (self.len & 63);
        } else {
            self.left_in_label -= 1;
            byte = byte.to_ascii_lowercase();
            if !(byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_') {
                self.odd = 1;
            }
        }
        if self.len as usize >= NAME_MAX {
            return self.stop(Unreadable::Long);
        }
        self.wire[self.len as usize & 255] = byte;
        self.len += 1;
        Step::More
    }

    /// Begins the walk back over the name that was read. Only suffixes of as many labels are told.
    #[inline(always)]
    pub fn rewind(&mut self, wanted: LabelCounts) {
        self.position = self.len;
        self.wanted = wanted;
        self.state = u32::from(automaton::START);
    }

    /// Class of the byte that was hashed last, for the policy's automaton; `None` for the length of the first
    /// label, before which no dot is.
    #[inline(always)]
    pub fn class(&self) -> Option<u8> {
        let position = self.position as usize & 255;
        if self.label_starts[position >> 6 & 3] >> (position & 63) & 1 == 0 {
            Some(automaton::class(self.wire[position]))
        } else if position == 0 {
            None
        } else {
            Some(automaton::DOT)
        }
    }

    /// State of the policy's automaton.
    #[inline(always)]
    pub fn state(&self) -> u32 {
        self.state
    }

    /// Moves the automaton on.
    #[inline(always)]
    pub fn enter(&mut self, state: u16) {
        self.state = u32::from(state);
    }

    /// Adds what the automaton says at the end of the name.
    #[inline(always)]
    pub fn add_masks(&mut self, masks: Masks) {
        self.masks = self.masks.union(masks);
    }

    /// Hashes one byte more, from the right.
    #[inline(always)]
    pub fn hash(&mut self, key: &[u32; 2]) -> Step {
        if self.position == 0 {
            return Step::Done;
        }
        self.position -= 1;
        let position = self.position as usize & 255;
        self.hash.push(self.wire[position], key);
        if self.label_starts[position >> 6 & 3] >> (position & 63) & 1 == 0 {
            return Step::More;
        }
        self.labels = self.labels.wrapping_sub(1);
        if self.wanted.has_next() { Step::Suffix(self.hash.value()) } else { Step::More }
    }

    /// Adds what the policy says about the suffix of the last [`Step::Suffix`].
    #[inline(always)]
    pub fn add(&mut self, masks: &NameMasks) {
        // `labels` counts those to the left of the suffix.
        let found = match self.labels {
            0 => masks.exact,
            1 => masks.one_label.union(masks.any_labels),
            _ => masks.any_labels,
        };
        self.masks = self.masks.union(found);
        // Without branches, each of which the verifier would follow: what is written counts only if it is one.
        let index = black_box(self.searches) as usize & (SEARCHES_MAX - 1);
        self.search_at[index] = self.position;
        self.search_labels[index] = self.labels;
        let has_labels = (self.labels | self.labels.wrapping_neg()) >> 31;
        self.searches += masks.search as u32 & self.searching & has_labels;
    }

    /// Leaves out a search domain that was found behind the name, so that the rest can be hashed; false if there
    /// are no more than `index`. The whole name is lost by it.
    #[inline(always)]
    pub fn leave_out_search(&mut self, index: u32) -> bool {
        if index >= self.searches || index as usize >= SEARCHES_MAX {
            return false;
        }
        // The compiler knows that it is below, the verifier does not.
        let index = black_box(index) as usize & (SEARCHES_MAX - 1);
        self.len = self.search_at[index];
        self.labels = self.search_labels[index];
        self.searching = 0;
        self.hash = NameHash::EMPTY;
        self.masks = Masks::NONE;
        self.question.forget();
        true
    }

    /// Whether a search domain was found behind the name.
    #[inline(always)]
    pub fn has_search(&self) -> bool {
        self.searches != 0
    }

    /// The question that the name is of, so that the next message can be asked whether it has the same.
    #[inline(always)]
    pub fn question(&mut self) -> &mut Question {
        &mut self.question
    }

    /// What the policy says about the name, after [`Step::Done`] of [`Self::hash`]. Names that no host can
    /// have match nothing: a byte that looks like a dot must not become one.
    #[inline(always)]
    pub fn masks(&self) -> Masks {
        if self.odd == 0 { self.masks } else { Masks::NONE }
    }

    /// Hash of the name, after [`Step::Done`] of [`Self::hash`].
    #[inline(always)]
    pub fn value(&self) -> u64 {
        self.hash.value()
    }

    /// Length of the wire form.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it is the root.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The wire form, in lower case; the first [`Self::len`] bytes count.
    #[inline(always)]
    pub fn wire(&self) -> &[u8; 256] {
        &self.wire
    }

    /// Why [`Self::read`] stopped.
    #[inline(always)]
    pub fn unreadable(&self) -> Unreadable {
        self.unreadable
    }

    #[inline(always)]
    fn stop(&mut self, why: Unreadable) -> Step {
        self.unreadable = why;
        Step::Stop
    }
}

#[cfg(test)]
mod tests;
