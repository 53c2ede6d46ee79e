//! From the Eggs that select a pod to the entries of the kernel's maps.
//!
//! Every list of ports becomes a *port group*, one bit of a `u64`. Names and networks say on which groups
//! they are allowed and denied; ports say which groups hold them; a packet is denied if the two have a group
//! of Deny rules in common, else allowed if they have one of Allow rules in common. So ports stay with their
//! own rule, however many Eggs there are.

mod automaton;
mod digest;
mod names;
mod networks;
mod port_groups;
mod searched;

use std::collections::{BTreeMap, BTreeSet};

use l7egg_crds::{Action, Mode};
use l7egg_ebpf_common::abi::{Masks, NameMasks};
use l7egg_ebpf_common::automaton::State;
use l7egg_ebpf_common::judge::Enforcement;

pub use automaton::AutomatonError;
pub use port_groups::PortPrefix;
pub use searched::Searched;

use crate::{
    DnsSettings, DomainName, MAX_PORT_LISTS, Network, PortSet, Problem, ResolvConf, Rule, Source, name_some,
    to_number, validate,
};

/// What all Eggs of a pod mean together, as map entries without ids. Equal policies have equal digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPolicy {
    /// The port groups; the index is the bit. Those of Eggs in mode Enforce come first.
    pub port_groups: Vec<PortSet>,
    /// How many of them are of such Eggs, and whether there is one at all.
    pub enforcement: Enforcement,
    /// What to look up for every suffix of a name.
    pub names: BTreeMap<DomainName, NameMasks>,
    /// States of the automaton for all other names, at most [`crate::MAX_STATES`]: the dead state, the start,
    /// and the rest; empty if there are no other names.
    pub automaton: Vec<State>,
    /// Where the Eggs refuse names: those that may be asked with a search domain behind them, all the same.
    pub searched: Searched,
    /// Networks, complete for longest-prefix match: the longest one that holds an address says all, and an
    /// address without one is in no rule.
    pub cidrs: BTreeMap<Network, Masks>,
    /// Port groups by protocol and port, complete for longest-prefix match.
    pub ports: BTreeMap<PortPrefix, u64>,
    /// The pod's DNS servers, IPv4 as `::ffff:a.b.c.d`.
    pub resolvers: BTreeSet<u128>,
    /// What the Eggs say about DNS itself. Where they refuse names, `names` has the search domains too.
    pub dns: DnsSettings,
    /// SHA-256 of all of the above.
    pub digest: [u8; 32],
}

/// Why Eggs cannot be compiled together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// One of them should not have been accepted.
    #[error("{source_name} is not valid: {}", first(.problems))]
    Invalid {
        /// Name of the source.
        source_name: String,
        /// What is wrong with it; not empty.
        problems: Vec<Problem>,
    },
    /// Together they have more than 64 lists of ports.
    #[error(
        "{} together have {found} different lists of ports, and {MAX_PORT_LISTS} is the most for one pod: use the same lists in more rules, or select the pod with fewer Eggs",
        name_some(.source_names)
    )]
    PortLists {
        /// How many.
        found: usize,
        /// Names of all sources.
        source_names: Vec<String>,
    },
    /// Together their patterns are too many, or too unlike each other.
    #[error(
        "the patterns of {} together need an automaton of {error}; use fewer regular expressions, stars inside labels and suffixes without a dot in front, or select the pod with fewer Eggs",
        name_some(.source_names)
    )]
    Automaton {
        /// What is too much.
        error: AutomatonError,
        /// Names of all sources.
        source_names: Vec<String>,
    },
}

/// Compiles the Eggs that select one pod, whose resolver is told `resolv_conf`. Without any Egg the result denies
/// everything: a pod that no Egg selects has no policy at all.
///
/// # Errors
/// [`CompileError`] names the Eggs, and what to change. Enforce what was enforced before, then.
pub fn compile(sources: &[Source<'_>], resolv_conf: &ResolvConf) -> Result<CompiledPolicy, CompileError> {
    let rules = read_all(sources)?;
    let source_names = || sources.iter().map(|source| source.name.clone()).collect();
    let groups = groups_of(&rules);
    if groups.len() > MAX_PORT_LISTS {
        return Err(CompileError::PortLists { found: groups.len(), source_names: source_names() });
    }
    let enforcement = enforcement(sources, &groups);
    let rules = with_groups(&groups, &rules);
    let port_groups: Vec<PortSet> = groups.into_iter().map(|(_, ports)| ports).collect();
    let dns = DnsSettings::of(sources);
    let resolv_conf = resolv_conf.that_counts(sources);
    let automaton = automaton::compile(&rules)
        .map_err(|error| CompileError::Automaton { error, source_names: source_names() })?;
    let mut compiled = CompiledPolicy {
        names: names::compile(&rules, resolv_conf.search.iter()),
        searched: searched::compile(&rules, &automaton, &resolv_conf.search),
        automaton,
        cidrs: networks::compile(&rules),
        ports: port_groups::compile(&port_groups),
        port_groups,
        enforcement,
        resolvers: resolv_conf.servers.into_iter().map(to_number).collect(),
        dns,
        digest: [0; 32],
    };
    compiled.digest = digest::of(&compiled);
    Ok(compiled)
}

fn read_all(sources: &[Source<'_>]) -> Result<Vec<Rule>, CompileError> {
    let mut all = Vec::new();
    for source in sources {
        let (rules, problems) = validate::read(source.spec);
        if !problems.is_empty() {
            return Err(CompileError::Invalid { source_name: source.name.clone(), problems });
        }
        all.extend(rules);
    }
    Ok(all)
}

/// Whether the patterns of these rules, of at most [`MAX_PORT_LISTS`] lists of ports, make an automaton.
pub(crate) fn check_automaton(rules: &[Rule]) -> Result<(), AutomatonError> {
    automaton::compile(&with_groups(&groups_of(rules), rules)).map(|_| ())
}

/// A list of ports, of Eggs in one mode.
type Group = (Mode, PortSet);

/// Sorted: those of mode Enforce come first.
fn groups_of(rules: &[Rule]) -> Vec<Group> {
    rules.iter().map(group).collect::<BTreeSet<_>>().into_iter().collect()
}

fn group(rule: &Rule) -> Group {
    (rule.mode, rule.ports.clone())
}

fn enforcement(sources: &[Source<'_>], groups: &[Group]) -> Enforcement {
    let has = |mode| sources.iter().any(|source| source.spec.mode == mode);
    match (has(Mode::Enforce), has(Mode::Audit)) {
        (false, true) => Enforcement::NOTHING,
        (_, false) => Enforcement::ALL,
        // They are at most 64.
        (true, true) => {
            Enforcement::of_first(groups.partition_point(|(mode, _)| *mode == Mode::Enforce) as u32)
        }
    }
}

fn with_groups<'a>(groups: &[Group], rules: &'a [Rule]) -> Vec<(u32, &'a Rule)> {
    rules.iter().map(|rule| (group_of(groups, rule), rule)).collect()
}

fn group_of(groups: &[Group], rule: &Rule) -> u32 {
    // The groups are those of the rules, sorted: the search finds each. They are at most 64.
    groups.binary_search(&group(rule)).unwrap_or_else(|at| at) as u32
}

/// The masks of one rule in one group.
fn masks(action: Action, group: u32) -> Masks {
    match action {
        Action::Allow => Masks { allow: 1 << group, deny: 0 },
        Action::Deny => Masks { allow: 0, deny: 1 << group },
    }
}

fn first(problems: &[Problem]) -> String {
    problems.first().map(Problem::to_string).unwrap_or_default()
}
