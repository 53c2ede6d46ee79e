//! A policy's automaton, compiled by `l7egg-policy` and walked as in the kernel, against `regex-automata`'s own
//! verdict on each pattern.
//!
//! The input is text. Lines that begin with `r`, `s` and `n` are a regular expression, a suffix and a name with
//! stars, as an Egg has them; the others are names to judge.

#![no_main]

use std::sync::LazyLock;

use l7egg_crds::{Destination, EgressRule, PolicySpec, Port, Protocol};
use l7egg_ebpf_common::abi::NameMasks;
use l7egg_ebpf_common::automaton;
use l7egg_ebpf_common::name::{hash, judge_name};
use l7egg_fuzz::KEY;
use l7egg_policy::{DomainName, PortSet, ResolvConf, Source, compile};
use libfuzzer_sys::fuzz_target;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;

/// More make it slow and find nothing new.
const PATTERNS: usize = 4;
const NAMES: usize = 8;
/// Repetitions of repetitions grow beyond what can be built thousands of times a second.
const PATTERN_MAX: usize = 40;

static CONFIG: LazyLock<syntax::Config> =
    LazyLock::new(|| syntax::Config::new().case_insensitive(true).unicode(false).utf8(false));

fuzz_target!(|input: &str| {
    let mut patterns = Vec::new();
    let mut names = Vec::new();
    for line in input.lines() {
        match line.split_at_checked(1) {
            Some((kind @ ("r" | "s" | "n"), text)) if text.starts_with(' ') => {
                patterns.extend(Pattern::read(kind, &text[1..]));
            }
            _ => names.extend(DomainName::parse(line)),
        }
    }
    patterns.truncate(PATTERNS);
    names.truncate(NAMES);
    if patterns.is_empty() || names.is_empty() {
        return;
    }
    // A list of ports for each pattern, so that each has a bit of its own.
    let egress = patterns.iter().enumerate().map(|(index, pattern)| EgressRule {
        to: vec![pattern.destination.clone()],
        ports: vec![Port { protocol: Protocol::Tcp, port: Some(port_of(index)), end_port: None }],
        ..EgressRule::default()
    });
    let spec = PolicySpec { egress: egress.collect(), ..PolicySpec::default() };
    let source = Source { name: "Egg".to_owned(), spec: &spec };
    // What is too large is refused.
    let Ok(policy) = compile(&[source], &ResolvConf::default()) else { return };
    let bit = |index: usize| {
        let is_its =
            |ports: &PortSet| ports.ranges().iter().any(|range| i32::from(range.first) == port_of(index));
        let group = policy.port_groups.iter().position(is_its);
        1u64 << group.expect("every list of ports is a group")
    };
    let lookup = |suffix| {
        let entry = policy.names.iter().find(|(name, _)| hash(name.wire(), &KEY) == suffix);
        entry.map(|(_, masks): (_, &NameMasks)| *masks)
    };
    for name in &names {
        let (_, masks) = judge_name(name.wire(), &KEY, lookup, &policy.automaton);
        let text = name.to_string();
        for (index, pattern) in patterns.iter().enumerate() {
            let expected = pattern.regex.is_match(&text);
            assert_eq!(masks.allow & bit(index) != 0, expected, "{text} and {:?}", pattern.destination);
        }
        // The two walks over the automaton are one.
        let walked = automaton::walk(&policy.automaton, name.wire());
        assert_eq!(judge_name(name.wire(), &KEY, |_| None, &policy.automaton).1, walked);
        assert_eq!(masks.union(walked), masks);
    }
});

fn port_of(pattern: usize) -> i32 {
    pattern as i32 + 1
}

/// A pattern as an Egg has it, and as a regular expression that is made here.
struct Pattern {
    destination: Destination,
    regex: Regex,
}

impl Pattern {
    /// Nothing if it is none.
    fn read(kind: &str, text: &str) -> Option<Self> {
        if text.len() > PATTERN_MAX || large_repetition(text) {
            return None;
        }
        let text = text.to_owned();
        let mut destination = Destination::default();
        let regex = match kind {
            "r" => {
                l7egg_policy::NamePattern::parse_regex(&text).ok()?;
                destination.domain_regex.push(text.clone());
                // A comment or a flag must not reach what is put around it.
                format!("\\A(?:{text})\\z")
            }
            "s" => {
                l7egg_policy::NamePattern::parse_suffix(&text).ok()?;
                destination.domain_suffixes.push(text.clone());
                let end = DomainName::parse(text.strip_prefix('.').unwrap_or(&text)).ok()?.to_string();
                let dot = if text.starts_with('.') { r"\." } else { "" };
                format!(r"\A.*{dot}{}\z", escape(&end))
            }
            _ => {
                l7egg_policy::NamePattern::parse(&text).ok()?;
                destination.domain_names.push(text.clone());
                stars(&text)?
            }
        };
        let regex = Regex::builder().syntax(*CONFIG).build(&regex).ok()?;
        Some(Self { destination, regex })
    }
}

/// `**.` in front is labels, `*` as a label is one, and any other star a part of its label.
fn stars(text: &str) -> Option<String> {
    let (front, rest) = match text.strip_prefix("**.") {
        Some(rest) => (r".+\.", rest),
        None => ("", text),
    };
    let rest = rest.strip_suffix('.').unwrap_or(rest);
    let mut labels = Vec::new();
    for label in rest.split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']) {
        labels.push(match label {
            "*" => "[^.]+".to_owned(),
            label if label.contains('*') => {
                let parts = label.split('*').map(|part| escape(&part.to_ascii_lowercase()));
                parts.collect::<Vec<_>>().join("[^.]*")
            }
            label => escape(&DomainName::parse(label).ok()?.to_string()),
        });
    }
    Some(format!(r"\A{front}{}\z", labels.join(r"\.")))
}

fn escape(text: &str) -> String {
    text.replace('.', r"\.")
}

/// `{20}` and more.
fn large_repetition(text: &str) -> bool {
    text.split('{').skip(1).any(|rest| {
        let number = rest.split('}').next().unwrap_or_default();
        number.split(',').any(|bound| bound.trim().parse::<u32>().is_ok_and(|bound| bound > 12))
    })
}
