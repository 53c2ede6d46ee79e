//! Whether an Egg can be accepted. Everything the schema and CEL rules of the CRDs say is checked here
//! again: API servers before 1.25 run no CEL, and objects can be older than a rule.

use std::collections::BTreeSet;

use l7egg_crds::{ClusterEggSpec, Mode, PolicySpec};

use crate::{Problem, Rule};

/// Most rules of one Egg.
pub const MAX_RULES: usize = 256;
/// Most entries of one rule's `to`.
pub const MAX_DESTINATIONS: usize = 2000;
/// Most entries of one rule's `ports`.
pub const MAX_PORTS: usize = 64;
/// Most names of one Egg.
pub const MAX_NAMES: usize = 4096;
/// Most CIDRs of one Egg, excepts included.
pub const MAX_CIDRS: usize = 100_000;
/// Most different port lists of one Egg, and of all Eggs that select one pod: the kernel keeps which lists
/// allow a destination as the bits of one 64-bit number.
pub const MAX_PORT_LISTS: usize = 64;
/// A list of problems ends here: it has to fit into a condition's message, and ten say enough.
const MAX_PROBLEMS: usize = 100;

/// All that is wrong with a policy, in the order of its fields; nothing if it can be enforced as it is
/// written. At most 100 problems are listed.
pub fn validate(spec: &PolicySpec) -> Vec<Problem> {
    read(spec).1
}

/// The same for a ClusterEgg, whose selectors can be wrong as well.
pub fn validate_cluster(spec: &ClusterEggSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    if spec.node_selector.is_some() {
        problems.push(if spec.pod_selector.is_some() || spec.namespace_selector.is_some() {
            Problem::invalid(
                "spec.nodeSelector",
                "write either nodeSelector (a host firewall) or podSelector and namespaceSelector, not both",
            )
        } else {
            Problem::unsupported(
                "spec.nodeSelector",
                "nodeSelector, a host firewall, comes with a later version of l7egg: select pods with podSelector",
            )
        });
    } else if spec.pod_selector.is_none() {
        problems.push(Problem::invalid(
            "spec.podSelector",
            "write podSelector: {} to select every pod of the namespaces, or matchLabels in it to select some",
        ));
    }
    problems.extend(validate(&spec.policy));
    problems
}

/// The rules of a policy, and all that is wrong with it. The rules are the whole policy only if nothing is.
pub(crate) fn read(spec: &PolicySpec) -> (Vec<Rule>, Vec<Problem>) {
    let mut problems = Vec::new();
    refuse_unsupported(spec, &mut problems);
    if spec.egress.len() > MAX_RULES {
        problems.push(too_many("spec.egress", spec.egress.len(), "rules", MAX_RULES));
    }
    let mut rules = Vec::with_capacity(spec.egress.len());
    for (index, rule) in spec.egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        if rule.to.len() > MAX_DESTINATIONS {
            problems.push(too_many(&format!("{path}.to"), rule.to.len(), "destinations", MAX_DESTINATIONS));
        }
        if rule.ports.len() > MAX_PORTS {
            problems.push(too_many(&format!("{path}.ports"), rule.ports.len(), "ports", MAX_PORTS));
        }
        rules.push(Rule::parse(rule, &path, &mut problems));
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    refuse_sizes(&rules, &mut problems);
    problems.truncate(MAX_PROBLEMS);
    (rules, problems)
}

fn refuse_unsupported(spec: &PolicySpec, problems: &mut Vec<Problem>) {
    if !spec.containers.is_empty() {
        problems.push(Problem::unsupported(
            "spec.containers",
            "containers comes with a later version of l7egg: leave it out, and the Egg is for all containers of its pods",
        ));
    }
    if spec.mode == Mode::Audit {
        problems.push(Problem::unsupported(
            "spec.mode",
            "mode Audit comes with a later version of l7egg: write Enforce, or leave it out",
        ));
    }
    if spec.dns.as_ref().is_some_and(|dns| dns.refuse_unmatched) {
        problems.push(Problem::unsupported(
            "spec.dns.refuseUnmatched",
            "dns.refuseUnmatched comes with a later version of l7egg: leave it out",
        ));
    }
    if spec.shaping.is_some() {
        problems.push(Problem::unsupported(
            "spec.shaping",
            "shaping comes with a later version of l7egg: leave it out",
        ));
    }
}

fn refuse_sizes(rules: &[Rule], problems: &mut Vec<Problem>) {
    let names: usize = rules.iter().map(|rule| rule.names.len()).sum();
    let cidrs: usize = rules.iter().flat_map(|rule| &rule.blocks).map(|block| 1 + block.except.len()).sum();
    let port_lists = rules.iter().map(|rule| &rule.ports).collect::<BTreeSet<_>>().len();
    for (found, what, most) in [
        (names, "names", MAX_NAMES),
        (cidrs, "CIDRs and excepts", MAX_CIDRS),
        (port_lists, "different lists of ports", MAX_PORT_LISTS),
    ] {
        if found > most {
            problems.push(too_many("spec.egress", found, what, most));
        }
    }
}

fn too_many(path: &str, found: usize, what: &str, most: usize) -> Problem {
    Problem::invalid(
        path,
        format!("{found} {what} are too many: {most} is the most, divide them among several Eggs or rules"),
    )
}
