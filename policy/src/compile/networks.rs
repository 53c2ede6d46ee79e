//! Networks: from blocks with excepts to one table for longest-prefix match.
//!
//! Networks are nested or disjoint, so in order of address and length they are the pre-order walk of a
//! forest. One pass over it with a stack of ancestors knows at every network which blocks hold it: a block
//! begins to count at its cidr and ceases to at its excepts.

use std::collections::BTreeMap;

use l7egg_ebpf_common::abi::Masks;

use super::masks;
use crate::network::IPV4_SPACE;
use crate::{Block, Network, Rule};

/// At `at` one block of a rule with these masks (one bit) begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    at: Network,
    masks: Masks,
    begins: bool,
}

/// O(n log n) in the number of cidrs and excepts.
pub(super) fn compile(rules: &[(u32, &Rule)]) -> BTreeMap<Network, Masks> {
    let mut changes = Vec::new();
    for &(group, rule) in rules {
        let masks = masks(rule.action, group);
        for block in &rule.blocks {
            changes.push(Change { at: block.cidr, masks, begins: true });
            changes.extend(ends_of(block).into_iter().map(|at| Change { at, masks, begins: false }));
        }
    }
    changes.sort_unstable();
    walk(&changes)
}

/// Where a block ends: its excepts, without those inside another. A cidr that is not IPv4 means IPv6 only,
/// so one that holds the numbers of IPv4 ends there.
fn ends_of(block: &Block) -> Vec<Network> {
    let ipv4 = (!block.cidr.is_ipv4() && block.cidr.contains(IPV4_SPACE)).then_some(IPV4_SPACE);
    let mut ends: Vec<Network> = block.except.iter().copied().chain(ipv4).collect();
    ends.sort_unstable();
    // Sorted, a network comes right before those inside it.
    ends.dedup_by(|inner, outer| outer.contains(*inner));
    ends
}

fn walk(changes: &[Change]) -> BTreeMap<Network, Masks> {
    let mut entries = BTreeMap::new();
    let mut active = Active::default();
    let mut ancestors: Vec<(&[Change], Masks)> = Vec::new();
    for here in changes.chunk_by(|a, b| a.at == b.at) {
        while let Some((changes, _)) =
            ancestors.last().filter(|(changes, _)| !changes[0].at.contains(here[0].at))
        {
            active.undo(changes);
            ancestors.pop();
        }
        active.apply(here);
        let said = ancestors.last().map_or(Masks::NONE, |(_, masks)| *masks);
        // The same as what the next longer network around it says need not be said again.
        if active.masks != said {
            entries.insert(here[0].at, active.masks);
        }
        ancestors.push((here, active.masks));
    }
    entries
}

/// How many blocks of each group hold the network at hand.
struct Active {
    masks: Masks,
    allow: [i64; 64],
    deny: [i64; 64],
}

impl Default for Active {
    fn default() -> Self {
        Active { masks: Masks::NONE, allow: [0; 64], deny: [0; 64] }
    }
}

impl Active {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.count(change.masks, if change.begins { 1 } else { -1 });
        }
    }

    fn undo(&mut self, changes: &[Change]) {
        for change in changes {
            self.count(change.masks, if change.begins { -1 } else { 1 });
        }
    }

    fn count(&mut self, one: Masks, by: i64) {
        for (bits, counts, mask) in [
            (one.allow, &mut self.allow, &mut self.masks.allow),
            (one.deny, &mut self.deny, &mut self.masks.deny),
        ] {
            if bits == 0 {
                continue;
            }
            let count = &mut counts[bits.trailing_zeros() as usize];
            *count += by;
            if *count > 0 { *mask |= bits } else { *mask &= !bits }
        }
    }
}
