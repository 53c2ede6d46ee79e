//! What pods have of the tables that all of them share, counted anew: the programs only count up.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, MapData};
use l7egg_ebpf_common::abi::{LEARNED_MAX, SHARES_OF_ALL, Shares};
use l7egg_ebpf_common::share;

use super::entries;
use super::error::kernel;
use crate::datapath::DatapathError;

/// What was counted, by subject.
#[derive(Debug, Default)]
pub struct Counted {
    own: BTreeMap<u32, Shares>,
    /// What was taken away meanwhile.
    removed: BTreeMap<u32, Shares>,
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
        Ok(Self { before, ..Self::default() })
    }

    /// An entry of `LEARNED`.
    pub fn learned(&mut self, subject: u32) {
        self.own.entry(subject).or_default().learned += 1;
    }

    /// An entry of `NAMES`.
    pub fn name(&mut self, subject: u32) {
        self.own.entry(subject).or_default().names += 1;
    }

    /// An entry of `LEARNED` that is there no more.
    pub fn removed_learned(&mut self, subject: u32) {
        self.removed.entry(subject).or_default().learned += 1;
    }

    /// An entry of `NAMES` that is there no more.
    pub fn removed_name(&mut self, subject: u32) {
        self.removed.entry(subject).or_default().names += 1;
    }

    /// Writes it to map `SHARES`, with what programs have added since the counting began: nobody is to have room for that. The
    /// subjects that were turned away since the last time.
    pub fn write(&self, map: &mut Array<MapData, Shares>) -> Result<BTreeSet<u32>, DatapathError> {
        let (mut wrong, mut turned_away) = (Vec::new(), BTreeSet::new());
        entries::each(map, "SHARES", |subject: u32, known: Shares| {
            let right = self.right(subject, known);
            if known.turned_away != 0 {
                turned_away.insert(subject);
            }
            if known != right {
                wrong.push((subject, right));
            }
        })?;
        for (subject, right) in wrong {
            map.set(subject, right, 0).map_err(kernel("writing map SHARES"))?;
        }
        Ok(turned_away)
    }

    /// What a subject has, where the map says `now`: that without what was taken away. It was at least what was counted; and at
    /// most that and what was added since, however the map came to say something else.
    fn right(&self, subject: u32, now: Shares) -> Shares {
        let of = |shares: &BTreeMap<u32, Shares>| match subject {
            SHARES_OF_ALL => sum(shares),
            _ => shares.get(&subject).copied().unwrap_or_default(),
        };
        let (own, removed) = (of(&self.own), of(&self.removed));
        let before = self.before.get(&subject).copied().unwrap_or_default();
        let right = |own: u64, removed: u64, before: u64, now: u64| {
            now.saturating_sub(removed).clamp(own, own + now.saturating_sub(before))
        };
        Shares {
            learned: right(own.learned, removed.learned, before.learned, now.learned),
            names: right(own.names, removed.names, before.names, now.names),
            turned_away: 0,
        }
    }
}

/// Room for learned addresses that the agent writes itself: as much as the programs would have for the same subjects.
#[derive(Debug)]
pub struct Room {
    /// What each has already.
    own: BTreeMap<u32, u64>,
    all: u64,
    taken: BTreeMap<u32, u64>,
}

impl Room {
    /// What is left to some subjects this moment.
    pub fn look<'a>(
        map: &Array<MapData, Shares>,
        subjects: impl IntoIterator<Item = &'a u32>,
    ) -> Result<Self, DatapathError> {
        let has = |subject: u32| map.get(&subject, 0).map_err(kernel("reading map SHARES"));
        let own: Result<_, _> =
            subjects.into_iter().map(|id| has(*id).map(|shares| (*id, shares.learned))).collect();
        Ok(Self { own: own?, all: has(SHARES_OF_ALL)?.learned, taken: BTreeMap::new() })
    }

    /// Whether a subject may have another one.
    pub fn is_left(&self, subject: u32) -> bool {
        let own = self.own.get(&subject).copied().unwrap_or_default();
        share::may_have_more(own, self.all, LEARNED_MAX)
    }

    /// It has it.
    pub fn take(&mut self, subject: u32) {
        for counts in [&mut self.own, &mut self.taken] {
            *counts.entry(subject).or_default() += 1;
        }
        self.all += 1;
    }

    /// Adds what was taken to map `SHARES`. What programs add in the same moment may be lost, until all is counted anew.
    pub fn write(mut self, map: &mut Array<MapData, Shares>) -> Result<(), DatapathError> {
        self.taken.insert(SHARES_OF_ALL, self.taken.values().sum());
        for (subject, taken) in self.taken.into_iter().filter(|(_, taken)| *taken > 0) {
            let known = map.get(&subject, 0).map_err(kernel("reading map SHARES"))?;
            let shares = Shares { learned: known.learned + taken, ..known };
            map.set(subject, shares, 0).map_err(kernel("writing map SHARES"))?;
        }
        Ok(())
    }
}

fn sum(shares: &BTreeMap<u32, Shares>) -> Shares {
    shares.values().fold(Shares::default(), |all, own| Shares {
        learned: all.learned + own.learned,
        names: all.names + own.names,
        turned_away: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of a subject, and the same of all: it is the only one.
    fn right(own: u64, removed: u64, before: u64, now: u64) -> u64 {
        let learned = |learned| Shares { learned, ..Shares::default() };
        let of = |subject, count| BTreeMap::from([(subject, learned(count))]);
        let counted =
            |subject| Counted { own: of(1, own), removed: of(1, removed), before: of(subject, before) };
        let [one, all] =
            [1, SHARES_OF_ALL].map(|subject| counted(subject).right(subject, learned(now)).learned);
        assert_eq!(one, all);
        one
    }

    #[test]
    fn what_is_added_during_the_count_counts_once() {
        // Thirty run out, of fifty; forty came while it was counted, some of which were seen.
        for seen in 0..=40 {
            assert_eq!(right(20 + seen, 30, 50, 90), 60, "{seen} seen");
        }
        // A burst, seen or not.
        assert_eq!(right(70, 0, 0, 100), 100);
        assert_eq!(right(0, 0, 0, 100), 100);
    }

    #[test]
    fn what_several_are_given_leaves_room_for_others() {
        let mut room = Room { own: BTreeMap::from([(2, 0), (3, 0)]), all: 60_000, taken: BTreeMap::new() };
        for _ in 0..60_000 {
            for subject in [2, 3, 4] {
                if room.is_left(subject) {
                    room.take(subject);
                }
            }
        }
        let most = u64::from(LEARNED_MAX) - 60_000;
        let taken: u64 = room.taken.values().sum();
        assert!(taken < most && taken > most * 4 / 5, "{taken} of {most}");
        assert!(room.taken.values().all(|one| one.abs_diff(taken / 3) <= 2), "{:?}", room.taken);
    }

    #[test]
    fn what_the_map_says_wrongly_is_put_right_where_nothing_is_added() {
        // An agent ended between removing and writing, or two wrote at once.
        assert_eq!(right(20, 0, 50, 50), 20);
        assert_eq!(right(20, 0, 10, 10), 20);
        // What was cleared meanwhile, as of a subject that is another pod's now, is not less than nothing.
        assert_eq!(right(20, 0, 50, 0), 20);
    }
}
