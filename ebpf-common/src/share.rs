//! How much of a table one subject may fill, so that no pod fills it for all others.
//!
//! The bound follows what is free ("dynamic thresholds": A. K. Choudhury, E. L. Hahne, Dynamic queue length thresholds for
//! shared-memory packet switches, IEEE/ACM Transactions on Networking 6(2), 1998): one that is alone has most of the table, those
//! that come later find room, and nothing has to be divided beforehand.

use core::sync::atomic::AtomicU64;

#[cfg(doc)]
use crate::abi::Shares;
use crate::abi::{LEARNED_MAX, NAMES_MAX};
use crate::atomics::Atomics;

/// So many times what is free a subject may have: alone four fifths of the table, two of them four ninths each.
pub const TIMES_FREE: u64 = 4;

/// What shares are of.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `LEARNED`.
    Learned,
    /// `NAMES`.
    Names,
}

/// [`Shares`] in map memory, which several CPUs may change at once.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Cells {
    /// [`Shares::learned`].
    pub learned: AtomicU64,
    /// [`Shares::names`].
    pub names: AtomicU64,
    /// [`Shares::turned_away`].
    pub turned_away: AtomicU64,
}

impl Cells {
    /// Of one of the tables.
    #[inline(always)]
    #[must_use]
    pub fn of(&self, table: Table) -> &AtomicU64 {
        match table {
            Table::Learned => &self.learned,
            Table::Names => &self.names,
        }
    }
}

/// Whether a subject may have another entry of a table, by what it has and what all have together.
#[inline(always)]
#[must_use]
pub fn has_room<A: Atomics>(own: &Cells, all: &Cells, table: Table) -> bool {
    let entries = match table {
        Table::Learned => LEARNED_MAX,
        Table::Names => NAMES_MAX,
    };
    may_have_more(A::load(own.of(table)), A::load(all.of(table)), entries)
}

/// The same by these counts, and of a table with so many entries.
#[inline(always)]
#[must_use]
pub fn may_have_more(own: u64, all: u64, entries: u32) -> bool {
    // Counts are a little behind where CPUs add at once: more than there are entries is not impossible.
    own < TIMES_FREE * u64::from(entries).saturating_sub(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One after the other takes what it can; how much each then has.
    fn filled(subjects: usize) -> Vec<u64> {
        let mut own = vec![0; subjects];
        loop {
            let before = own.clone();
            for subject in 0..subjects {
                let all = own.iter().sum();
                own[subject] += u64::from(may_have_more(own[subject], all, 100_000));
            }
            if own == before {
                return own;
            }
        }
    }

    #[test]
    fn one_alone_has_most_and_several_have_the_same() {
        assert_eq!(filled(1), [80_000]);
        for own in filled(2) {
            assert!((44_440..=44_448).contains(&own), "{own}");
        }
    }

    #[test]
    fn who_comes_when_others_have_taken_all_they_can_finds_room() {
        for greedy in [1, 5, 50] {
            let all: u64 = filled(greedy).iter().sum();
            assert!(all < 100_000, "{greedy} of them leave nothing");
            assert!(may_have_more(0, all, 100_000) && may_have_more(100, all, 100_000));
        }
    }

    #[test]
    fn a_full_table_or_more_has_no_room_for_anybody() {
        assert!(!may_have_more(0, 100, 100) && !may_have_more(0, u64::MAX, 100));
    }
}
