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
}

impl Counted {
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

    /// Writes it to map `SHARES`. What programs have added since is missing until the next time.
    pub fn write(&self, map: &mut Array<MapData, Shares>) -> Result<(), DatapathError> {
        let mut wrong = Vec::new();
        entries::each(map, "SHARES", |subject: u32, known: Shares| {
            let right = if subject == SHARES_OF_ALL {
                self.all()
            } else {
                self.own.get(&subject).copied().unwrap_or_default()
            };
            if known != right {
                wrong.push((subject, right));
            }
        })?;
        for (subject, right) in wrong {
            map.set(subject, right, 0).map_err(kernel("writing map SHARES"))?;
        }
        Ok(())
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
