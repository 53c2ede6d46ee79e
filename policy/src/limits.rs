//! How large an Egg may be.

use std::collections::BTreeSet;

use l7egg_crds::PolicySpec;

use crate::{Problem, Rule};

/// Most rules of one Egg.
pub const MAX_RULES: usize = 64;
/// Most entries of one rule's `to`.
pub const MAX_DESTINATIONS: usize = 1000;
/// Most names of one entry of `to`; as many suffixes and as many regular expressions.
pub const MAX_DESTINATION_NAMES: usize = 1000;
/// Most excepts of one cidr.
pub const MAX_EXCEPTS: usize = 256;
/// Most entries of one rule's `ports`.
pub const MAX_PORTS: usize = 64;
/// Most names of one Egg, suffixes and regular expressions included.
pub const MAX_NAMES: usize = 8192;
/// Most states of the automaton for the patterns of all Eggs that select one pod. Four such policies fill the
/// kernel's table of states.
pub const MAX_STATES: usize = 16_384;
/// Most cidrs of one Egg, excepts included.
pub const MAX_CIDRS: usize = 100_000;
/// Most different port lists of all Eggs that select one pod: the kernel keeps which lists allow a destination
/// as the bits of one 64-bit number.
pub const MAX_PORT_LISTS: usize = l7egg_ebpf_common::abi::PORT_GROUPS_MAX;

/// Adds a problem for everything that is too much: first the lists, which the schema bounds as well, then
/// the sums, which it cannot.
pub(crate) fn check(spec: &PolicySpec, rules: &[Rule], problems: &mut Vec<Problem>) {
    let mut limit = |path: String, found: usize, what: &str, most: usize, parts: &str| {
        if found > most {
            let message =
                format!("{found} {what} are too many: {most} is the most, divide them among several {parts}");
            problems.push(Problem::invalid(path, message));
        }
    };
    limit("spec.egress".to_owned(), spec.egress.len(), "rules", MAX_RULES, "Eggs");
    for (index, rule) in spec.egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        limit(format!("{path}.to"), rule.to.len(), "destinations", MAX_DESTINATIONS, "rules");
        limit(format!("{path}.ports"), rule.ports.len(), "ports", MAX_PORTS, "rules");
        for (index, to) in rule.to.iter().enumerate() {
            let path = format!("{path}.to[{index}]");
            for (field, found, what) in [
                ("domainNames", to.domain_names.len(), "names"),
                ("domainSuffixes", to.domain_suffixes.len(), "suffixes"),
                ("domainRegex", to.domain_regex.len(), "regular expressions"),
            ] {
                limit(format!("{path}.{field}"), found, what, MAX_DESTINATION_NAMES, "entries of to");
            }
            limit(
                format!("{path}.except"),
                to.except.len(),
                "excepts",
                MAX_EXCEPTS,
                "entries of to, with longer cidrs",
            );
        }
    }
    let names: usize = rules.iter().map(|rule| rule.names.len()).sum();
    let cidrs: usize = rules.iter().flat_map(|rule| &rule.blocks).map(|block| 1 + block.except.len()).sum();
    let port_lists = rules.iter().map(|rule| &rule.ports).collect::<BTreeSet<_>>().len();
    limit("spec.egress".to_owned(), names, "names", MAX_NAMES, "Eggs");
    limit("spec.egress".to_owned(), cidrs, "cidrs and excepts", MAX_CIDRS, "Eggs");
    limit("spec.egress".to_owned(), port_lists, "different lists of ports", MAX_PORT_LISTS, "Eggs");
}
