//! An Egg's rules, read.

use std::fmt::Display;

use l7egg_crds::{Action, Destination, EgressRule, Mode};

use crate::{NamePattern, Network, PortRange, PortSet, Problem};

/// One rule as parsed values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Mode of its Egg.
    pub mode: Mode,
    /// What it does.
    pub action: Action,
    /// Names it is about.
    pub names: Vec<NamePattern>,
    /// Networks it is about.
    pub blocks: Vec<Block>,
    /// Ports it is about.
    pub ports: PortSet,
}

/// A network without some parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The network.
    pub cidr: Network,
    /// Parts of it that are not meant.
    pub except: Vec<Network>,
}

impl Rule {
    /// Reads a rule that stands at `path` of an Egg in this mode. What is wrong is added to `problems` and left
    /// out of the rule.
    pub fn parse(rule: &EgressRule, mode: Mode, path: &str, problems: &mut Vec<Problem>) -> Rule {
        let (mut names, mut blocks) = (Vec::new(), Vec::new());
        if rule.to.is_empty() {
            problems.push(Problem::invalid(
                format!("{path}.to"),
                "a rule needs a destination: write names or a cidr; for everything write [{cidr: 0.0.0.0/0}, {cidr: \"::/0\"}]",
            ));
        }
        for (index, to) in rule.to.iter().enumerate() {
            let path = format!("{path}.to[{index}]");
            refuse_mixed(to, &path, problems);
            read_names(to, &path, &mut names, problems);
            blocks.extend(read_block(to, &path, problems));
        }
        let mut ranges = Vec::with_capacity(rule.ports.len());
        for (index, port) in rule.ports.iter().enumerate() {
            match PortRange::parse(port) {
                Ok(range) => ranges.push(range),
                Err(error) => {
                    problems
                        .push(Problem::invalid(format!("{path}.ports[{index}].{}", error.field()), error));
                }
            }
        }
        Rule { mode, action: rule.action, names, blocks, ports: PortSet::new(ranges) }
    }
}

fn refuse_mixed(to: &Destination, path: &str, problems: &mut Vec<Problem>) {
    let named = !(to.domain_names.is_empty() && to.domain_regex.is_empty() && to.domain_suffixes.is_empty());
    let message = match (named, to.cidr.is_some(), to.except.is_empty()) {
        (false, false, true) => "a destination needs names or a cidr: write domainNames or cidr",
        (_, false, false) => "except belongs to a cidr: write cidr beside it",
        (true, true, _) => {
            "a destination is either a cidr (with except) or names: write them as two entries of to"
        }
        _ => return,
    };
    problems.push(Problem::invalid(path, message));
}

fn read_names(to: &Destination, path: &str, names: &mut Vec<NamePattern>, problems: &mut Vec<Problem>) {
    read_each(&to.domain_names, &format!("{path}.domainNames"), NamePattern::parse, names, problems);
    read_each(
        &to.domain_suffixes,
        &format!("{path}.domainSuffixes"),
        NamePattern::parse_suffix,
        names,
        problems,
    );
    read_each(&to.domain_regex, &format!("{path}.domainRegex"), NamePattern::parse_regex, names, problems);
}

fn read_each<E: Display>(
    texts: &[String],
    path: &str,
    parse: fn(&str) -> Result<NamePattern, E>,
    names: &mut Vec<NamePattern>,
    problems: &mut Vec<Problem>,
) {
    for (index, text) in texts.iter().enumerate() {
        match parse(text) {
            Ok(pattern) => names.push(pattern),
            Err(error) => problems.push(Problem::invalid(format!("{path}[{index}]"), error)),
        }
    }
}

fn read_block(to: &Destination, path: &str, problems: &mut Vec<Problem>) -> Option<Block> {
    let text = to.cidr.as_ref()?;
    let cidr = match Network::parse(text) {
        Ok(cidr) => Some(cidr),
        Err(error) => {
            problems.push(Problem::invalid(format!("{path}.cidr"), error));
            None
        }
    };
    let mut excepts = Vec::with_capacity(to.except.len());
    for (index, except_text) in to.except.iter().enumerate() {
        let path = format!("{path}.except[{index}]");
        match (Network::parse(except_text), cidr) {
            (Err(error), _) => problems.push(Problem::invalid(path, error)),
            (Ok(_), None) => {}
            (Ok(except), Some(cidr)) if except.is_ipv4() != cidr.is_ipv4() => problems.push(Problem::invalid(
                path,
                format!("{except_text} is of another address family than {text}: an except is a part of its cidr"),
            )),
            (Ok(except), Some(cidr)) if !cidr.contains(except) => problems.push(Problem::invalid(
                path,
                format!("{except_text} is not inside {text}: an except is a part of its cidr; leave it out"),
            )),
            (Ok(except), Some(cidr)) if except == cidr => problems.push(Problem::invalid(
                path,
                format!("{except_text} is all of {text}: nothing would be left; leave out the whole entry of to"),
            )),
            (Ok(except), Some(_)) => excepts.push(except),
        }
    }
    Some(Block { cidr: cidr?, except: excepts })
}
