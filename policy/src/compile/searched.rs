//! Names that may be asked with a search domain behind them, because another search domain behind them makes a name that an Allow
//! rule matches. Resolvers go through the search list one domain after the other, and end at the first that is refused.
//!
//! It is a little policy of its own: names that hashes find, and an automaton. It opens nothing, and nothing is learned by it.

use std::collections::{BTreeMap, BTreeSet};

use l7egg_crds::Action;
use l7egg_ebpf_common::abi::{Masks, NameMasks};
use l7egg_ebpf_common::automaton::State;

use super::automaton::{self, Front};
use crate::{DomainName, NamePattern, PatternKind, Rule};

/// What is said about such a name.
pub(super) const MAY_BE_SEARCHED: Masks = Masks { allow: 1, deny: 0 };

/// What stands before the search domains, for all names that some Allow rule matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// As [`super::CompiledPolicy::names`].
    pub names: BTreeMap<DomainName, NameMasks>,
    /// As [`super::CompiledPolicy::automaton`].
    pub automaton: Vec<State>,
}

impl Searched {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.automaton.is_empty()
    }
}

/// `states` are those of the automaton for what the rules themselves match.
pub(super) fn compile(rules: &[(u32, &Rule)], states: &[State], search: &BTreeSet<DomainName>) -> Searched {
    let mut names = BTreeMap::<DomainName, NameMasks>::new();
    let mut front = Front::default();
    let allowed = rules.iter().filter(|(_, rule)| rule.action == Action::Allow);
    let patterns = allowed.flat_map(|(_, rule)| &rule.names);
    for (name, kind) in patterns.filter_map(NamePattern::hashed) {
        for domain in search {
            match (name.before(domain), kind) {
                (Some(before), _) => *kind.of(names.entry(before).or_default()) = MAY_BE_SEARCHED,
                (None, PatternKind::AnyLabels) if domain.labels_before(name).is_some() => front.any = true,
                (None, PatternKind::OneLabel) if domain == name => front.one_label = true,
                (None, _) => {}
            }
        }
    }
    Searched { names, automaton: automaton::before(states, search, front) }
}
