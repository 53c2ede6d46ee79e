//! Where a policy's names are looked for.

use crate::automaton::Extent;

/// Map value of `MATCHERS`, by policy id; a policy without names has none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    /// Its automaton.
    pub states: Extent,
    /// How many labels its names in `PATTERNS` have.
    pub labels: LabelCounts,
}

/// Numbers of labels: a suffix of another number need not be looked up.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelCounts(
    /// Bit `n`: `n` labels; bit 63: 63 labels or more, which is why it is signed.
    i64,
);

impl LabelCounts {
    /// Every number.
    pub const ALL: Self = Self(-1);

    /// Of the names given in wire form, without the root label.
    #[must_use]
    pub fn of<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(names.into_iter().fold(0, |counts, name| counts | 1 << labels(name).min(63)))
    }

    /// One label more, from the right: whether a suffix of as many labels as there were calls can be one of the names.
    #[inline(always)]
    pub fn has_next(&mut self) -> bool {
        // The uppermost bit fills up what becomes free.
        self.0 >>= 1;
        self.0 & 1 != 0
    }
}

fn labels(wire: &[u8]) -> u32 {
    let (mut at, mut labels) = (0, 0);
    while let Some(len) = wire.get(at) {
        labels += 1;
        at += usize::from(*len) + 1;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_of_as_many_labels_only() {
        let mut none = LabelCounts::default();
        assert!((0..127).all(|_| !none.has_next()));
        let names: [&[u8]; 2] = [b"\x03com", b"\x01a\x07example\x03com"];
        let mut counts = LabelCounts::of(names);
        let found: Vec<bool> = (0..5).map(|_| counts.has_next()).collect();
        assert_eq!(found, [true, false, true, false, false]);
    }

    #[test]
    fn more_labels_than_bits() {
        for labels in [62, 63, 64, 127] {
            let name = b"\x01a".repeat(labels);
            let mut counts = LabelCounts::of([name.as_slice()]);
            let found: Vec<bool> = (1..=127).map(|_| counts.has_next()).collect();
            assert!(found[labels - 1]);
            assert_eq!(found.iter().position(|found| *found), Some(labels.min(63) - 1));
        }
    }
}
