//! What pods have of the tables that all of them share, counted anew: the programs only count up.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, MapData};
use l7egg_ebpf_common::abi::{SHARES_OF_ALL, Shares};

use super::entries;
use super::error::kernel;
use crate::datapath::DatapathError;

/// What was counted, by subject.
#[derive(Debug, Default)]
pub struct Counted {
    own: BTreeMap<u32, Shares>,
    /// What the map said when the counting began.
    before: BTreeMap<u32, Shares>,
}

impl Counted {
    /// Nothing yet; what programs add from now on is added to what is counted.
    pub fn begin(map: &Array<MapData, Shares>) -> Result<Self, DatapathError> {
        let mut before = BTreeMap::new();
        entries::each(map, "SHARES", |subject: u32, known: Shares| {
            if known != Shares::default() {
                before.insert(subject, known);
            }
        })?;
        Ok(Self { own: BTreeMap::new(), before })
    }

    /// An entry of `LEARNED`.
    pub fn learned(&mut self, subject: u32) {
        self.own.entry(subject).or_default().learned += 1;
    }

    /// An entry of `NAMES`.
    pub fn name(&mut self, subject: u32) {
        self.own.entry(subject).or_default().names += 1;
    }

    /// Subjects that can have no more.
    pub fn used_up(&self) -> BTreeSet<u32> {
        let all = self.all();
        let used_up = self.own.iter().filter(|(_, own)| own.are_used_up(&all));
        used_up.map(|(subject, _)| *subject).collect()
    }

    /// Writes it to map `SHARES`, with what programs have added since the counting began: nobody is to have room for that. Some of it
    /// was counted too, and may count twice until the next time, where as much has run out.
    pub fn write(&self, map: &mut Array<MapData, Shares>) -> Result<(), DatapathError> {
        let mut wrong = Vec::new();
        entries::each(map, "SHARES", |subject: u32, known: Shares| {
            let counted = if subject == SHARES_OF_ALL {
                self.all()
            } else {
                self.own.get(&subject).copied().unwrap_or_default()
            };
            let right = self.with_added(subject, counted, known);
            if known != right {
                wrong.push((subject, right));
            }
        })?;
        for (subject, right) in wrong {
            map.set(subject, right, 0).map_err(kernel("writing map SHARES"))?;
        }
        Ok(())
    }

    /// What was counted, and what was added between the beginning and now.
    fn with_added(&self, subject: u32, counted: Shares, now: Shares) -> Shares {
        let before = self.before.get(&subject).copied().unwrap_or_default();
        // Programs count up only: more than they say there is not, but for what user space has moved here.
        let right = |counted: u64, before: u64, now: u64| {
            (counted + now.saturating_sub(before)).min(now.max(counted))
        };
        Shares {
            learned: right(counted.learned, before.learned, now.learned),
            names: right(counted.names, before.names, now.names),
        }
    }

    fn all(&self) -> Shares {
        self.own.values().fold(Shares::default(), |all, own| Shares {
            learned: all.learned + own.learned,
            names: all.names + own.names,
        })
    }
}

#[cfg(test)]
mod tests {
    use l7egg_ebpf_common::abi::{LEARNED_MAX, NAMES_MAX};

    use super::*;

    #[test]
    fn what_is_added_during_the_count_counts() {
        let before = BTreeMap::from([(1, Shares { learned: 50, names: 7 })]);
        let mut counted = Counted { own: BTreeMap::new(), before };
        (0..20).for_each(|_| counted.learned(1));
        let right = counted.with_added(1, counted.own[&1], Shares { learned: 90, names: 7 });
        assert_eq!(right, Shares { learned: 60, names: 0 });
        // All of a burst that was counted as it came counts once.
        let burst =
            Counted { own: BTreeMap::from([(1, Shares { learned: 70, names: 0 })]), before: BTreeMap::new() };
        assert_eq!(burst.with_added(1, burst.own[&1], Shares { learned: 100, names: 0 }).learned, 100);
        // What was cleared meanwhile, as of a subject that is another pod's now, is not less than nothing.
        assert_eq!(counted.with_added(1, counted.own[&1], Shares::default()).learned, 20);
    }

    #[test]
    fn only_who_has_most_can_have_no_more() {
        let mut counted = Counted::default();
        (0..LEARNED_MAX - 100).for_each(|_| counted.learned(1));
        counted.learned(2);
        counted.name(2);
        assert_eq!(counted.used_up(), BTreeSet::from([1]));
        (0..NAMES_MAX).for_each(|_| counted.name(3));
        assert_eq!(counted.used_up(), BTreeSet::from([1, 2, 3]), "with no name free");
    }
}
