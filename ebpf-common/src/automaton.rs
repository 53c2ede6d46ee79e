//! Names that hashes cannot find (regular expressions, `*` inside a label, partial names): one deterministic
//! automaton for a policy, walked over the name from right to left in the same pass that hashes it.
//!
//! Right to left, because then a partial name is a prefix: thousands of them are a trie, not a product.

use crate::abi::Masks;

/// Kinds of bytes that a name has, and with them transitions of a state.
pub const CLASSES: usize = 40;
/// Class of the dot between two labels.
pub const DOT: u8 = 38;
/// Class of everything that no host name has; leads nowhere.
pub const OTHER: u8 = 39;

/// The state that nothing leads out of and that says nothing.
pub const DEAD: u16 = 0;
/// The state before the first byte.
pub const START: u16 = 1;

/// One state.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// What the policy says about a name that ends (begins, read as people do) here.
    pub masks: Masks,
    /// The next state for each class.
    pub next: [u16; CLASSES],
}

impl State {
    /// The dead state.
    pub const DEAD: Self = Self { masks: Masks::NONE, next: [DEAD; CLASSES] };
}

/// Where the states of a policy are in the array `STATES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Index of the dead state; state `n` is at `base + n`.
    pub base: u32,
    /// Number of states, 0 where there is no automaton.
    pub len: u32,
}

/// Class of a byte of a label in lower case.
#[inline(always)]
pub fn class(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => byte - b'a',
        b'0'..=b'9' => byte - b'0' + 26,
        b'-' => 36,
        b'_' => 37,
        _ => OTHER,
    }
}

/// A byte of the class, `None` for [`OTHER`].
pub fn byte_of(class: u8) -> Option<u8> {
    match class {
        0..=25 => Some(b'a' + class),
        26..=35 => Some(b'0' + class - 26),
        36 => Some(b'-'),
        37 => Some(b'_'),
        DOT => Some(b'.'),
        _ => None,
    }
}

/// What an automaton says about a name in wire form (lower case, without the root label). What the kernel does
/// in its walk, for user space.
pub fn walk(states: &[State], wire: &[u8]) -> Masks {
    let Some(starts) = label_starts(wire) else { return Masks::NONE };
    let mut state = START;
    for (position, byte) in wire.iter().enumerate().rev() {
        let class = match (starts[position], position) {
            (true, 0) => continue,
            (true, _) => DOT,
            (false, _) => class(*byte),
        };
        state = states.get(usize::from(state)).map_or(DEAD, |row| row.next[usize::from(class)]);
    }
    states.get(usize::from(state)).map_or(Masks::NONE, |row| row.masks)
}

fn label_starts(wire: &[u8]) -> Option<[bool; 256]> {
    let mut starts = [false; 256];
    let mut at = 0;
    while at < wire.len() {
        *starts.get_mut(at)? = true;
        at += usize::from(wire[at]) + 1;
    }
    Some(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_bytes_are_inverse() {
        for class_of in 0..OTHER {
            let byte = byte_of(class_of).unwrap();
            assert_eq!(if byte == b'.' { DOT } else { class(byte) }, class_of);
        }
        assert_eq!(class(b'.'), OTHER, "a dot within a label is none between labels");
    }

    #[test]
    fn a_partial_name_is_a_prefix_from_the_right() {
        // "om": any name that ends with it.
        let said = Masks { allow: 1, deny: 0 };
        let mut states = [State::DEAD; 4];
        states[1].next[usize::from(class(b'm'))] = 2;
        states[2].next[usize::from(class(b'o'))] = 3;
        states[3] = State { masks: said, next: [3; CLASSES] };
        assert_eq!(walk(&states, b"\x01x\x03com"), said);
        assert_eq!(walk(&states, b"\x02om"), said);
        assert_eq!(walk(&states, b"\x01m"), Masks::NONE);
        assert_eq!(walk(&states, b"\x02mo"), Masks::NONE);
    }
}
