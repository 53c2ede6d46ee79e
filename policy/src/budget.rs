//! Whether the patterns of one Egg fit into the kernel's automaton.

use std::cmp::Reverse;

use l7egg_crds::{Action, Mode, PolicySpec};

use crate::{NamePattern, NameRegex, PortSet, Problem, Rule, compile};

/// How many of the largest regular expressions are tried alone to find the one to blame.
const SUSPECTS: usize = 3;

/// What is wrong if the patterns of an Egg need too large an automaton: one regular expression that is too
/// much by itself, or all together. `rules` are all of the Egg's, and there is nothing else wrong with it.
pub(crate) fn problem(spec: &PolicySpec, rules: &[Rule]) -> Option<Problem> {
    let error = compile::check_automaton(rules).err()?;
    let mut suspects: Vec<(String, NameRegex)> = regexes(spec).collect();
    suspects.sort_by_key(|(_, regex)| Reverse(regex.size()));
    for (path, regex) in suspects.into_iter().take(SUSPECTS) {
        let message = |error| {
            format!(
                "{regex} needs an automaton of {error}; use fewer or smaller repetitions, no more than one .* and such, or write the names in domainNames"
            )
        };
        if let Err(error) = compile::check_automaton(&[alone(&regex)]) {
            return Some(Problem::invalid(path, message(error)));
        }
    }
    Some(Problem::invalid(
        "spec.egress",
        format!(
            "the patterns together need an automaton of {error}; use fewer regular expressions, stars inside labels and suffixes without a dot in front, or divide them among Eggs for different pods"
        ),
    ))
}

fn regexes(spec: &PolicySpec) -> impl Iterator<Item = (String, NameRegex)> {
    let destinations = spec.egress.iter().enumerate().flat_map(|(rule, written)| {
        written.to.iter().enumerate().map(move |(index, to)| (format!("spec.egress[{rule}].to[{index}]"), to))
    });
    destinations.flat_map(|(path, to)| {
        to.domain_regex.iter().enumerate().filter_map(move |(index, text)| {
            Some((format!("{path}.domainRegex[{index}]"), NameRegex::parse(text).ok()?))
        })
    })
}

fn alone(regex: &NameRegex) -> Rule {
    Rule {
        mode: Mode::Enforce,
        action: Action::Allow,
        names: vec![NamePattern::Regex(regex.clone())],
        blocks: Vec::new(),
        ports: PortSet::Any,
    }
}
