//! Fewer states that say the same.
//!
//! Partition refinement (Moore, "Gedanken-experiments on sequential machines", 1956): states are told apart
//! by what they say, then by which of these kinds they lead to, and so on until nothing more is told apart.
//! Each round looks one byte further, and names end: after as many rounds as a name has bytes, states that
//! are still of one kind say the same about all of its rest, and any of them can stand for the others.

use std::collections::HashMap;

use super::{CLASSES, Row};
use crate::MAX_WIRE;

/// The fewest rows that say the same, in the order in which they are reached; none if they say nothing about
/// any name. The first is dead, the second the start, before and after.
pub(super) fn minimize(rows: &[Row]) -> Vec<Row> {
    let mut kinds = number(rows.iter().map(|row| row.masks));
    for _ in 1..MAX_WIRE {
        let next = number((0..rows.len()).map(|state| (kinds.of[state], kinds_behind(&kinds, &rows[state]))));
        let done = next.count == kinds.count;
        kinds = next;
        if done {
            break;
        }
    }
    if kinds.of[1] == kinds.of[0] {
        return Vec::new();
    }
    let mut first = vec![usize::MAX; kinds.count];
    for (state, &kind) in kinds.of.iter().enumerate().rev() {
        first[kind as usize] = state;
    }
    let mut numbers = HashMap::from([(kinds.of[0], 0), (kinds.of[1], 1)]);
    let mut order = vec![0, 1];
    let mut reached = Vec::new();
    while let Some(&state) = order.get(reached.len()) {
        let mut row = rows[state].clone();
        for next in &mut row.next {
            let kind = kinds.of[*next as usize];
            *next = *numbers.entry(kind).or_insert_with(|| {
                order.push(first[kind as usize]);
                order.len() as u32 - 1
            });
        }
        reached.push(row);
    }
    reached
}

struct Kinds {
    of: Vec<u32>,
    count: usize,
}

/// Equal keys get equal numbers, in the order in which they come.
fn number<K: Eq + std::hash::Hash>(keys: impl Iterator<Item = K>) -> Kinds {
    let mut numbers = HashMap::new();
    let of = keys
        .map(|key| {
            let next = numbers.len() as u32;
            *numbers.entry(key).or_insert(next)
        })
        .collect();
    Kinds { of, count: numbers.len() }
}

fn kinds_behind(kinds: &Kinds, row: &Row) -> [u32; CLASSES] {
    row.next.map(|next| kinds.of[next as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use l7egg_ebpf_common::abi::Masks;

    fn row(allow: u64, next: &[(usize, u32)]) -> Row {
        let mut row = Row { masks: Masks { allow, deny: 0 }, ..Row::DEAD };
        for (class, state) in next {
            row.next[*class] = *state;
        }
        row
    }

    #[test]
    fn twins_become_one_and_the_unreached_goes() {
        let rows = [
            row(0, &[]),
            row(0, &[(0, 2), (1, 3)]),
            row(0, &[(0, 4)]),
            row(0, &[(0, 5)]),
            row(1, &[(7, 6)]),
            row(1, &[]),
            // Says nothing about anything: as good as dead.
            row(0, &[(3, 6)]),
            row(9, &[]),
        ];
        let expected = [row(0, &[]), row(0, &[(0, 2), (1, 2)]), row(0, &[(0, 3)]), row(1, &[])];
        assert_eq!(minimize(&rows), expected);
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(minimize(&[row(0, &[]), row(0, &[(0, 1)])]), []);
    }
}
