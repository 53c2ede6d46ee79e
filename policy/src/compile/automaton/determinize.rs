//! From languages to one deterministic automaton, by `regex-automata`.

use std::collections::HashMap;

use l7egg_ebpf_common::abi::Masks;
use l7egg_ebpf_common::automaton::byte_of;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::Hir;

use super::{AutomatonError, CLASSES, Row};
use crate::MAX_WIRE;

/// Most bytes of the automaton with choices.
const MAX_NFA: usize = 64 << 20;
/// Most bytes of the one without, before states are merged: 256 or less for each state.
const MAX_DFA: usize = 16 << 20;
/// Most bytes of the sets of states that it is made from. This bounds the time: each is looked at once for
/// every class.
const MAX_SETS: usize = 16 << 20;

/// Rows of all states that a name leads to; the first is dead, the second the start.
pub(super) fn determinize(languages: &[(Masks, Hir)]) -> Result<Vec<Row>, AutomatonError> {
    let dfa = build(&nfa(languages)?)?;
    let start = dfa
        .start_state(&start::Config::new().anchored(Anchored::Yes))
        .map_err(|error| AutomatonError::Other(error.to_string()))?;
    let mut numbers = HashMap::from([(start, 1usize)]);
    let mut rows = vec![Row::DEAD, Row { masks: masks(&dfa, start, languages), ..Row::DEAD }];
    let mut level = vec![(start, 1)];
    // A name has no more bytes than this, its dots included.
    for _ in 1..MAX_WIRE {
        let mut next_level = Vec::new();
        for (state, from) in level {
            for class in 0..CLASSES {
                let Some(byte) = byte_of(class as u8) else { continue };
                let next = dfa.next_state(state, byte);
                if dfa.is_dead_state(next) {
                    continue;
                }
                let number = *numbers.entry(next).or_insert_with(|| {
                    rows.push(Row { masks: masks(&dfa, next, languages), ..Row::DEAD });
                    next_level.push((next, rows.len() - 1));
                    rows.len() - 1
                });
                rows[from].next[class] = number as u32;
            }
        }
        level = next_level;
    }
    Ok(rows)
}

fn nfa(languages: &[(Masks, Hir)]) -> Result<NFA, AutomatonError> {
    let config = thompson::Config::new()
        .reverse(true)
        .utf8(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(MAX_NFA));
    let expressions: Vec<&Hir> = languages.iter().map(|(_, expression)| expression).collect();
    thompson::Compiler::new().configure(config).build_many_from_hir(&expressions).map_err(|error| match error
        .size_limit()
    {
        Some(limit) => AutomatonError::Building { limit },
        None => AutomatonError::Other(error.to_string()),
    })
}

fn build(nfa: &NFA) -> Result<dense::DFA<Vec<u32>>, AutomatonError> {
    let mut config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .accelerate(false)
        .dfa_size_limit(Some(MAX_DFA))
        .determinize_size_limit(Some(MAX_SETS));
    // What no name has need not be followed.
    let names: Vec<u8> = (0..CLASSES).filter_map(|class| byte_of(class as u8)).collect();
    for byte in (0..=u8::MAX).filter(|byte| !names.contains(byte)) {
        config = config.quit(byte, true);
    }
    dense::Builder::new().configure(config).build_from_nfa(nfa).map_err(|error| {
        if error.is_size_limit_exceeded() {
            AutomatonError::Building { limit: MAX_DFA }
        } else {
            AutomatonError::Other(error.to_string())
        }
    })
}

/// What the languages say about a name that ends in this state.
fn masks(dfa: &dense::DFA<Vec<u32>>, state: StateID, languages: &[(Masks, Hir)]) -> Masks {
    let end = dfa.next_eoi_state(state);
    if !dfa.is_match_state(end) {
        return Masks::NONE;
    }
    (0..dfa.match_len(end))
        .map(|index| languages[dfa.match_pattern(end, index).as_usize()].0)
        .fold(Masks::NONE, Masks::union)
}
