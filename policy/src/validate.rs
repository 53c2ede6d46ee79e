//! Whether an Egg can be accepted. Everything the schema and CEL rules of the CRDs say is checked here
//! again: API servers before 1.25 run no CEL, and objects can be older than a rule.

use l7egg_crds::{Action, ClusterEggSpec, PolicySpec};

use crate::{Guard, MAX_CONTAINER_NAME, MAX_RULES, Problem, Rule, budget, dns, limit, limits};

/// A list of problems ends here: it has to fit into a condition's message, and ten say enough.
const MAX_PROBLEMS: usize = 100;

/// All that is wrong with a policy, in the order of its fields; nothing if it can be enforced as it is
/// written. At most 100 problems are listed.
pub fn validate(spec: &PolicySpec) -> Vec<Problem> {
    let (rules, mut problems) = read(spec);
    if problems.is_empty() {
        problems.extend(budget::problem(spec, &rules));
    }
    problems
}

/// The same for a ClusterEgg, whose selectors can be wrong as well.
pub fn validate_cluster(spec: &ClusterEggSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    if spec.node_selector.is_some() {
        if spec.pod_selector.is_some() || spec.namespace_selector.is_some() {
            problems.push(Problem::invalid(
                "spec.nodeSelector",
                "write either nodeSelector (a host firewall) or podSelector and namespaceSelector, not both",
            ));
        }
        check_for_nodes(&spec.policy, &mut problems);
    } else if spec.pod_selector.is_none() {
        problems.push(Problem::invalid(
            "spec.podSelector",
            "write podSelector: {} to select every pod of the namespaces, or matchLabels in it to select some",
        ));
    }
    problems.extend(validate(&spec.policy));
    problems
}

/// What is only for pods.
fn check_for_nodes(policy: &PolicySpec, problems: &mut Vec<Problem>) {
    let mut refuse = |path: String, message: &str| problems.push(Problem::invalid(path, message));
    if !policy.containers.is_empty() {
        refuse(
            "spec.containers".into(),
            "a node has no containers: leave it out, or select pods with podSelector",
        );
    }
    if policy.shaping.is_some() {
        refuse(
            "spec.shaping".into(),
            "a node's own traffic cannot be limited, as its interfaces are its pods' as well: leave it out, or select pods with podSelector",
        );
    }
    if policy.dns.as_ref().is_some_and(|dns| dns.refuse_unmatched) {
        refuse(
            "spec.dns.refuseUnmatched".into(),
            "a node must be able to ask for the names that it needs to stay in the cluster: leave it out",
        );
    }
    if policy.dns.as_ref().is_some_and(|dns| !dns.servers.is_empty()) {
        refuse(
            "spec.dns.servers".into(),
            "a node must be able to ask its DNS servers for the names that it needs to stay in the cluster: leave it out",
        );
    }
    let denies = policy.egress.iter().enumerate().filter(|(_, rule)| rule.action == Action::Deny);
    for (rule, deny) in denies.clone() {
        for (index, _) in deny.to.iter().enumerate().filter(|(_, to)| to.cidr.is_none()) {
            refuse(
                format!("spec.egress[{rule}].to[{index}]"),
                "a node cannot be denied a name, as what it needs to stay in the cluster could have it: write the networks, or leave the name out of the Allow rules",
            );
        }
    }
    // With the guard each Deny rule can become as many as there are kinds of what is guarded, and one more.
    if policy.egress.len() + denies.count() * Guard::MAX_KINDS + Guard::MAX_KINDS > MAX_RULES {
        refuse(
            "spec.egress".into(),
            "too many rules for a node, where each Deny rule counts as four, to keep what it needs reachable: divide them among several ClusterEggs",
        );
    }
}

/// The rules of a policy, and all that is wrong with it but the size of its automaton. The rules are the whole policy only if nothing is.
pub(crate) fn read(spec: &PolicySpec) -> (Vec<Rule>, Vec<Problem>) {
    let mut problems = Vec::new();
    check_containers(spec, &mut problems);
    let mut rules = Vec::with_capacity(spec.egress.len());
    for (index, rule) in spec.egress.iter().enumerate() {
        rules.push(Rule::parse(rule, spec.mode, &format!("spec.egress[{index}]"), &mut problems));
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    if let Some(dns) = &spec.dns {
        dns::check(dns, &mut problems);
    }
    limits::check(spec, &rules, &mut problems);
    limit::check(spec, &mut problems);
    problems.truncate(MAX_PROBLEMS);
    (rules, problems)
}

fn check_containers(spec: &PolicySpec, problems: &mut Vec<Problem>) {
    for (index, name) in spec.containers.iter().enumerate() {
        if !is_label(name) {
            problems.push(Problem::invalid(
                format!("spec.containers[{index}]"),
                format!("{name:?} is no name of a container: these have lower-case letters, digits and '-', up to {MAX_CONTAINER_NAME}"),
            ));
        }
    }
    if !spec.containers.is_empty() && spec.shaping.is_some() {
        problems.push(Problem::invalid(
            "spec.shaping",
            "a bandwidth limit is one of the pod's interface, which all its containers share: write it in an Egg without containers",
        ));
    }
}

/// RFC 1123 §2.1.
fn is_label(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_CONTAINER_NAME).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
