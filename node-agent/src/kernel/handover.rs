//! What one subject remembers is given to others: when a pod becomes divided, or one again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use l7egg_ebpf_common::abi::{FLOW_IDLE_NS, FLOWS_MAX, Flow, FlowKey, Learned, LearnedKey, LearnedName};
use l7egg_ebpf_common::learned::CLAIMED;

use super::entries;
use super::programs::Maps;
use super::shares::Room;
use super::sys::{EXIST, NO_EXIST};
use crate::clock::boot_ns;
use crate::datapath::DatapathError;

/// How many flows are written at most: where the table is full each takes the place of the one that has been quiet for longest,
/// whoever's that is, and a pod has as many times its flows to give as it has containers.
const FLOWS_GIVEN: usize = FLOWS_MAX as usize / 8;

/// When it is given: before the others are asked, or afterwards, for what came in between.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Before,
    After,
}

/// Gives the addresses and flows of some subjects to others, as far as there is room for. The rest is asked for and judged again.
pub fn give(
    maps: &mut Maps,
    from: &BTreeSet<u32>,
    to: &BTreeSet<u32>,
    pass: Pass,
) -> Result<(), DatapathError> {
    if from.is_empty() || to.is_empty() {
        return Ok(());
    }
    let now_ns = boot_ns();
    give_learned(maps, from, to, pass, now_ns)?;
    let mut flows = Vec::new();
    entries::each(&maps.flows, "FLOWS", |key, flow| {
        if from.contains(&key.subject) {
            flows.push((key, flow));
        }
    })?;
    for (key, flow) in flows_to_give(flows, to.len(), now_ns) {
        for subject in to {
            let key = FlowKey { subject: *subject, ..key };
            let _ = maps.flows.insert(key, flow, if pass == Pass::Before { 0 } else { NO_EXIST });
        }
    }
    Ok(())
}

fn give_learned(
    maps: &mut Maps,
    from: &BTreeSet<u32>,
    to: &BTreeSet<u32>,
    pass: Pass,
    now_ns: u64,
) -> Result<(), DatapathError> {
    let mut learned = Vec::new();
    entries::each(&maps.learned, "LEARNED", |key, value| {
        if from.contains(&key.subject)
            && let Some(value) = live(&value, now_ns)
        {
            learned.push((key, value));
        }
    })?;
    let mut room = Room::look(&maps.shares, to)?;
    for (key, value) in learned {
        for subject in to {
            let key = LearnedKey { subject: *subject, ..key };
            match maps.learned.get(&key, 0).ok() {
                // Nobody else writes there before. Afterwards what was learned again since the first pass is worth more than what a
                // program may write in the same moment.
                Some(known) => {
                    let both = both(&known, &value);
                    if both != known {
                        _ = maps.learned.insert(key, both, if pass == Pass::Before { 0 } else { EXIST });
                    }
                }
                None if room.is_left(*subject) && maps.learned.insert(key, value, NO_EXIST).is_ok() => {
                    room.take(*subject);
                }
                None => {}
            }
        }
    }
    room.write(&mut maps.shares)
}

/// The names that have not run out, if there are any.
fn live(learned: &Learned, now_ns: u64) -> Option<Learned> {
    let is_live =
        |slot: &LearnedName| slot.name != 0 && slot.expires_ns != CLAIMED && slot.expires_ns >= now_ns;
    learned.names.iter().any(is_live).then(|| {
        let mut live = Learned::default();
        live.names
            .iter_mut()
            .zip(learned.names.into_iter().filter(is_live))
            .for_each(|(to, from)| *to = from);
        live
    })
}

/// Those that are not over, and of too many those that spoke last: each is written so many times.
fn flows_to_give(mut flows: Vec<(FlowKey, Flow)>, times: usize, now_ns: u64) -> Vec<(FlowKey, Flow)> {
    flows.retain(|(_, flow)| flow.seen_ns.saturating_add(FLOW_IDLE_NS) >= now_ns);
    flows.sort_unstable_by_key(|(_, flow)| Reverse(flow.seen_ns));
    flows.truncate(FLOWS_GIVEN / times.max(1));
    flows
}

/// The names of both; those that last longest, if these are too many.
pub fn both(a: &Learned, b: &Learned) -> Learned {
    let mut by_name = BTreeMap::new();
    for slot in a.names.iter().chain(&b.names).filter(|slot| slot.name != 0 && slot.expires_ns != CLAIMED) {
        let expires: &mut u64 = by_name.entry(slot.name).or_default();
        *expires = (*expires).max(slot.expires_ns);
    }
    let mut names: Vec<(u64, u64)> = by_name.into_iter().map(|(name, expires)| (expires, name)).collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    let mut both = Learned::default();
    for (slot, (expires_ns, name)) in both.names.iter_mut().zip(names) {
        slot.name = name;
        slot.expires_ns = expires_ns;
    }
    both
}

#[cfg(test)]
mod tests {
    use l7egg_ebpf_common::abi::{Address, Direction, protocol};

    use super::*;

    fn of(names: &[(u64, u64)]) -> Learned {
        let mut learned = Learned::default();
        for (slot, (name, expires_ns)) in learned.names.iter_mut().zip(names) {
            *slot = LearnedName { name: *name, expires_ns: *expires_ns };
        }
        learned
    }

    #[test]
    fn an_address_keeps_the_names_of_both() {
        assert_eq!(both(&of(&[(1, 10), (2, 20)]), &of(&[(2, 30), (3, 5)])), of(&[(2, 30), (1, 10), (3, 5)]));
        let many: Vec<(u64, u64)> = (1..=8).map(|name| (name, 100 - name)).collect();
        assert_eq!(both(&of(&many), &of(&[(9, 1)])), of(&many));
    }

    #[test]
    fn names_that_have_run_out_are_not_given() {
        assert_eq!(live(&of(&[(1, 10), (2, 20), (3, 30)]), 20), Some(of(&[(2, 20), (3, 30)])));
        assert_eq!(live(&of(&[(1, 10)]), 11), None);
        assert_eq!(live(&of(&[]), 0), None);
    }

    #[test]
    fn of_too_many_flows_those_are_given_that_spoke_last() {
        let flow = |seen_ns: u64| {
            let key = FlowKey {
                subject: 1,
                local_port: seen_ns as u16,
                remote_port: 53,
                remote: Address::UNSPECIFIED,
                protocol: protocol::UDP,
                reserved: [0; 3],
            };
            (key, Flow { seen_ns, direction: Direction::Egress as u32, ..Flow::default() })
        };
        let now_ns = FLOW_IDLE_NS + 10;
        let given = |times| {
            let given = flows_to_give((0..20_000).map(flow).collect(), times, now_ns);
            given.into_iter().map(|(_, flow)| flow.seen_ns).collect::<Vec<_>>()
        };
        assert_eq!(given(1), (11_808..20_000).rev().collect::<Vec<_>>());
        assert_eq!(given(4).len(), FLOWS_GIVEN / 4);
        assert!(given(100_000).is_empty());
        assert_eq!(flows_to_give((0..20).map(flow).collect(), 2, now_ns).len(), 10, "half of them are over");
    }
}
