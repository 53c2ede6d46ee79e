//! What stands before a search domain in the names that an automaton says something about: the right quotient of its language
//! by each domain, all of them together as one automaton.

use std::collections::{BTreeSet, HashMap};

use l7egg_ebpf_common::automaton::{DEAD, DOT, OTHER, START, State, class};

use super::{CLASSES, MAX_STATES, Row, minimize, state};
use crate::DomainName;
use crate::compile::searched::MAY_BE_SEARCHED;

/// Of what stands there whatever the automaton says, as patterns that hashes find have nothing more before a domain.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::compile) struct Front {
    /// Every name.
    pub any: bool,
    /// Every name of one label.
    pub one_label: bool,
}

/// Its states, as those of any automaton; none if there is nothing, or more than an automaton may have: queries for such names
/// are answered as those for all others are.
pub(in crate::compile) fn before(
    states: &[State],
    search: &BTreeSet<DomainName>,
    front: Front,
) -> Vec<State> {
    // Numbers behind those of the states, and never the dead one's.
    let parts = Parts { states, any: states.len() + 1, one_label: states.len() + 2 };
    let mut start: Vec<usize> = search.iter().map(|domain| behind(states, domain)).collect();
    start.extend(front.any.then_some(parts.any));
    start.extend(front.one_label.then_some(parts.one_label));
    let Some(rows) = parts.determinize(parts.set(start)) else { return Vec::new() };
    minimize::minimize(&rows).iter().map(state).collect()
}

/// The state in front of a domain and its dot.
fn behind(states: &[State], domain: &DomainName) -> usize {
    let text = domain.to_string();
    let classes = text.bytes().rev().map(|byte| if byte == b'.' { DOT } else { class(byte) }).chain([DOT]);
    classes.fold(usize::from(START), |state, class| {
        states.get(state).map_or(usize::from(DEAD), |row| row.next[usize::from(class)].into())
    })
}

struct Parts<'a> {
    states: &'a [State],
    any: usize,
    one_label: usize,
}

impl Parts<'_> {
    /// Each once and in order, without the dead one. Beside `any`, no other matters.
    fn set(&self, states: Vec<usize>) -> Vec<usize> {
        let set: BTreeSet<usize> = states.into_iter().filter(|state| *state != usize::from(DEAD)).collect();
        if set.contains(&self.any) { vec![self.any] } else { set.into_iter().collect() }
    }

    fn next(&self, from: usize, class: usize) -> usize {
        match self.states.get(from) {
            Some(state) => state.next[class].into(),
            None if from == self.one_label && class == usize::from(DOT) => DEAD.into(),
            None => from,
        }
    }

    fn row(&self, set: &[usize]) -> Row {
        let says = |number: &usize| self.states.get(*number).is_none_or(|state| state.masks.allow != 0);
        Row { masks: if set.iter().any(says) { MAY_BE_SEARCHED } else { Row::DEAD.masks }, ..Row::DEAD }
    }

    /// The subset construction; nothing where it comes to more than [`MAX_STATES`].
    fn determinize(&self, start: Vec<usize>) -> Option<Vec<Row>> {
        const { assert!(CLASSES == OTHER as usize) };
        let mut rows = vec![Row::DEAD, self.row(&start)];
        let mut numbers = HashMap::from([(Vec::new(), 0), (start.clone(), 1)]);
        // A start of nothing is the dead state.
        let mut left = if start.is_empty() { Vec::new() } else { vec![(start, 1)] };
        while let Some((set, from)) = left.pop() {
            for class in 0..CLASSES {
                let next = self.set(set.iter().map(|state| self.next(*state, class)).collect());
                let number = *numbers.entry(next).or_insert_with_key(|next| {
                    rows.push(self.row(next));
                    left.push((next.clone(), rows.len() - 1));
                    rows.len() - 1
                });
                rows[from].next[class] = number as u32;
            }
            if rows.len() > MAX_STATES {
                return None;
            }
        }
        Some(rows)
    }
}
