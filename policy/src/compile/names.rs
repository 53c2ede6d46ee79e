//! Names that hashes find: one entry for each name, with what rules say about it and about names below it.

use std::collections::BTreeMap;

use l7egg_ebpf_common::abi::NameMasks;

use super::masks;
use crate::{DomainName, NamePattern, PatternKind, Rule};

pub(super) fn compile<'a>(
    rules: &[(u32, &Rule)],
    search: impl Iterator<Item = &'a DomainName>,
) -> BTreeMap<DomainName, NameMasks> {
    let mut names = BTreeMap::<DomainName, NameMasks>::new();
    for &(group, rule) in rules {
        let masks = masks(rule.action, group);
        for pattern in &rule.names {
            let (name, kind) = match pattern {
                NamePattern::Labels(labels) => (&labels.name, labels.kind),
                NamePattern::Suffix(suffix) if suffix.whole_labels => (&suffix.name, PatternKind::AnyLabels),
                NamePattern::Suffix(_) | NamePattern::Glob(_) | NamePattern::Regex(_) => continue,
            };
            let entry = names.entry(name.clone()).or_default();
            let of_kind = match kind {
                PatternKind::Exact => &mut entry.exact,
                PatternKind::OneLabel => &mut entry.one_label,
                PatternKind::AnyLabels => &mut entry.any_labels,
            };
            *of_kind = of_kind.union(masks);
        }
    }
    for domain in search {
        names.entry(domain.clone()).or_default().search = 1;
    }
    names
}
