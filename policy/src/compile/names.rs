//! Names that hashes find: one entry for each name, with what rules say about it and about names below it.

use std::collections::BTreeMap;

use l7egg_ebpf_common::abi::{Masks, NameMasks};

use super::masks;
use crate::{DomainName, NamePattern, PatternKind, Rule};

pub(super) fn compile<'a>(
    rules: &[(u32, &Rule)],
    search: impl Iterator<Item = &'a DomainName>,
) -> BTreeMap<DomainName, NameMasks> {
    let mut names = BTreeMap::<DomainName, NameMasks>::new();
    for &(group, rule) in rules {
        let masks = masks(rule.action, group);
        for (name, kind) in rule.names.iter().filter_map(NamePattern::hashed) {
            let of_kind = kind.of(names.entry(name.clone()).or_default());
            *of_kind = of_kind.union(masks);
        }
    }
    for domain in search {
        names.entry(domain.clone()).or_default().search = 1;
    }
    names
}

impl PatternKind {
    /// What an entry says about names of this kind.
    pub(super) fn of(self, entry: &mut NameMasks) -> &mut Masks {
        match self {
            PatternKind::Exact => &mut entry.exact,
            PatternKind::OneLabel => &mut entry.one_label,
            PatternKind::AnyLabels => &mut entry.any_labels,
        }
    }
}

impl NamePattern {
    /// The name by which the kernel finds it, if hashes can.
    pub(super) fn hashed(&self) -> Option<(&DomainName, PatternKind)> {
        match self {
            NamePattern::Labels(labels) => Some((&labels.name, labels.kind)),
            NamePattern::Suffix(suffix) if suffix.whole_labels => {
                Some((&suffix.name, PatternKind::AnyLabels))
            }
            NamePattern::Suffix(_) | NamePattern::Glob(_) | NamePattern::Regex(_) => None,
        }
    }
}
