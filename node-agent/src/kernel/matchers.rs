//! Where the names of policies are found: how many labels those in `PATTERNS` have, and where the automata are, each a run
//! of consecutive states in one array.

use std::collections::BTreeMap;

use l7egg_ebpf_common::abi::NameMasks;
use l7egg_ebpf_common::automaton::{Extent, State};
use l7egg_ebpf_common::matcher::{LabelCounts, Matcher};
use l7egg_policy::DomainName;

use super::error::{insertion, kernel};
use super::programs::Maps;
use crate::datapath::DatapathError;

/// Writes a policy's automaton and says where its names are; nothing for a policy without names.
pub fn write(
    maps: &mut Maps,
    id: u32,
    names: &BTreeMap<DomainName, NameMasks>,
    automaton: &[State],
) -> Result<(), DatapathError> {
    if names.is_empty() && automaton.is_empty() {
        return Ok(());
    }
    let labels = LabelCounts::of(names.keys().map(|name| name.wire()));
    let states = if automaton.is_empty() { Extent::default() } else { write_states(maps, automaton)? };
    // Last: what no matcher names is free.
    maps.matchers.insert(id, Matcher { states, labels }, 0).map_err(|error| insertion("MATCHERS", error))
}

fn write_states(maps: &mut Maps, states: &[State]) -> Result<Extent, DatapathError> {
    let mut used = Vec::new();
    for entry in maps.matchers.iter() {
        used.push(entry.map_err(kernel("reading map MATCHERS"))?.1.states);
    }
    let len = states.len() as u32;
    let base = first_fit(used, len, maps.states.len()).ok_or_else(|| DatapathError::MapFull {
        map: "STATES",
        advice: "what is enforced stays so; use fewer regular expressions and partial names on this node"
            .into(),
    })?;
    for (index, state) in (base..).zip(states) {
        maps.states.set(index, state, 0).map_err(|error| insertion("STATES", error))?;
    }
    Ok(Extent { base, len })
}

/// The lowest place where `len` states fit between those that are used.
fn first_fit(mut used: Vec<Extent>, len: u32, capacity: u32) -> Option<u32> {
    used.sort_unstable_by_key(|extent| extent.base);
    let mut free = 0;
    for extent in used {
        if extent.base.saturating_sub(free) >= len {
            break;
        }
        free = free.max(extent.base + extent.len);
    }
    (capacity.checked_sub(free)? >= len).then_some(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gap_that_is_long_enough() {
        let extent = |base, len| Extent { base, len };
        assert_eq!(first_fit(vec![], 10, 10), Some(0));
        assert_eq!(first_fit(vec![], 11, 10), None);
        let used = || vec![extent(20, 10), extent(4, 6)];
        assert_eq!(first_fit(used(), 4, 40), Some(0));
        assert_eq!(first_fit(used(), 5, 40), Some(10));
        assert_eq!(first_fit(used(), 11, 41), Some(30));
        assert_eq!(first_fit(used(), 11, 40), None);
    }
}
