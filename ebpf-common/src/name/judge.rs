//! What the kernel does with a name, for user space.

use super::{HASH_STEPS, NameWalk, Step};
use crate::abi::{Masks, NameMasks};
use crate::automaton::State;
use crate::matcher::LabelCounts;

/// Whether an Allow rule matches a name, by itself, or without one of the search domains behind it, or with another one there. What
/// the kernel does before it refuses a query, for user space: `lookup` and `states` are those of the policy, and of what it says about
/// searches ([`crate::abi::SEARCHED`]).
pub fn may_ask(
    wire: &[u8],
    key: &[u32; 2],
    lookup: impl Fn(bool, u64) -> Option<NameMasks>,
    states: [&[State]; 2],
) -> bool {
    let mut walk = NameWalk::default();
    walk.start_wire(wire);
    judge_walk(&mut walk, key, &mut |suffix| lookup(false, suffix), states[0]);
    let mut index = 0;
    while walk.masks().allow == 0 {
        if !walk.leave_out_search(index / 2) {
            return false;
        }
        let is_searched = index % 2 == 1;
        index += 1;
        walk.rewind(LabelCounts::ALL);
        judge_walk(
            &mut walk,
            key,
            &mut |suffix| lookup(is_searched, suffix),
            states[usize::from(is_searched)],
        );
    }
    true
}

/// Hash of a name and what a policy says about it, where `lookup` answers for a suffix and `states` are those
/// of its automaton, or none. What the kernel does in two loops, for user space.
pub fn judge_name(
    wire: &[u8],
    key: &[u32; 2],
    mut lookup: impl FnMut(u64) -> Option<NameMasks>,
    states: &[State],
) -> (u64, Masks) {
    let mut walk = NameWalk::default();
    walk.start_wire(wire);
    judge_walk(&mut walk, key, &mut lookup, states);
    (walk.value(), walk.masks())
}

fn judge_walk(
    walk: &mut NameWalk,
    key: &[u32; 2],
    lookup: &mut impl FnMut(u64) -> Option<NameMasks>,
    states: &[State],
) {
    for _ in 0..=HASH_STEPS {
        let step = walk.hash(key);
        if step == Step::Done {
            break;
        }
        if let (Some(class), Some(state)) = (walk.class(), states.get(walk.state() as usize)) {
            walk.enter(state.next[usize::from(class)]);
        }
        if let Step::Suffix(suffix) = step
            && let Some(masks) = lookup(suffix)
        {
            walk.add(&masks);
        }
    }
    if let Some(state) = states.get(walk.state() as usize) {
        walk.add_masks(state.masks);
    }
}
