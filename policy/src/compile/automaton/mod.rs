//! The automaton: one for all patterns of a policy that hashes cannot find.
//!
//! Patterns that say the same (have equal masks) become one language, a trie that shares their ends.
//! `regex-automata` makes all languages one
//! deterministic automaton over names read from the right, and states that say the same about every name are
//! merged.

mod determinize;
mod minimize;
mod quotient;
mod trie;

use std::collections::BTreeMap;

use l7egg_ebpf_common::abi::Masks;
use l7egg_ebpf_common::automaton::{OTHER, State};
use regex_syntax::hir::Hir;

pub(super) use self::quotient::{Front, before};
use super::masks;
use crate::{MAX_STATES, NamePattern, Rule};
use trie::Trie;

/// How often patterns may branch on the way from a name's end to its beginning. What reads them afterwards calls itself at
/// each of these, on the stack of whoever compiles.
const MAX_BRANCHES: usize = 128;
/// Classes that names have.
const CLASSES: usize = OTHER as usize;

/// A state before its number has to fit into 16 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    masks: Masks,
    next: [u32; CLASSES],
}

impl Row {
    const DEAD: Row = Row { masks: Masks::NONE, next: [0; CLASSES] };
}

/// Why patterns make no automaton.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AutomatonError {
    /// It is larger than [`MAX_STATES`].
    #[error("{0} states, and {MAX_STATES} is the most")]
    States(usize),
    /// It was given up before it was known how large it gets.
    #[error(
        "more states than fit into {} MiB while it is built, and {MAX_STATES} states are the most when it is done",
        .limit >> 20
    )]
    Building {
        /// Where it was given up, in bytes.
        limit: usize,
    },
    /// Its patterns are each other's ends, one inside the other.
    #[error(
        "patterns that are the ends of others, which are the ends of others, more than {MAX_BRANCHES} times"
    )]
    Branches,
    /// Nothing that is known to happen.
    #[error("something that cannot be built: {0}")]
    Other(String),
}

/// States of the automaton, none if hashes find everything; the first is the dead state, the second the
/// start. Equal rules have equal automata, in whatever order they come.
pub(super) fn compile(rules: &[(u32, &Rule)]) -> Result<Vec<State>, AutomatonError> {
    let mut languages = BTreeMap::<Masks, Trie>::new();
    for &(group, rule) in rules {
        let masks = masks(rule.action, group);
        for pattern in &rule.names {
            match pattern {
                NamePattern::Labels(_) => {}
                NamePattern::Suffix(suffix) if suffix.whole_labels => {}
                NamePattern::Suffix(suffix) => languages.entry(masks).or_default().add_suffix(suffix),
                NamePattern::Glob(glob) => languages.entry(masks).or_default().add_glob(glob),
                NamePattern::Regex(regex) => languages.entry(masks).or_default().add_regex(regex),
            }
        }
    }
    if languages.is_empty() {
        return Ok(Vec::new());
    }
    let languages = languages.into_iter().filter_map(|(masks, language)| match language.into_hir() {
        Ok(hir) => Some(Ok((masks, hir?))),
        Err(error) => Some(Err(error)),
    });
    let languages = languages.collect::<Result<Vec<(Masks, Hir)>, _>>()?;
    let rows = minimize::minimize(&determinize::determinize(&languages)?);
    if rows.len() > MAX_STATES {
        return Err(AutomatonError::States(rows.len()));
    }
    Ok(rows.iter().map(state).collect())
}

fn state(row: &Row) -> State {
    let mut state = State { masks: row.masks, ..State::DEAD };
    for (to, from) in state.next.iter_mut().zip(row.next) {
        // At most `MAX_STATES`, which fits.
        *to = from as u16;
    }
    state
}
