//! Names and patterns against plain string handling, against the kernel's walk, and against noise.

use std::collections::HashMap;

use crate::{DomainName, NamePattern, ResolvConf, Source, compile, validate};
use l7egg_crds::{Destination, EgressRule, PolicySpec, Port, Protocol};
use l7egg_ebpf_common::abi::Masks;
use l7egg_ebpf_common::name::{hash, judge_name};
use proptest::prelude::*;

const KEY: [u32; 2] = [0x1234_5678, 0x0bcd_ef01];

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec("[aB]{1,2}", 1..5).prop_map(|labels| labels.join("."))
}

fn pattern() -> impl Strategy<Value = String> {
    (prop_oneof![Just(""), Just("*."), Just("**.")], name())
        .prop_map(|(stars, name)| format!("{stars}{name}"))
}

/// What the reference says, on text alone.
fn matches_text(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_lowercase(), name.to_lowercase());
    if let Some(parent) = pattern.strip_prefix("**.") {
        name.ends_with(&format!(".{parent}"))
    } else if let Some(parent) = pattern.strip_prefix("*.") {
        name.split_once('.').is_some_and(|(_, rest)| rest == parent)
    } else {
        name == pattern
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patterns_match_as_text_does(pattern in pattern(), name in name()) {
        let parsed = NamePattern::parse(&pattern).unwrap();
        prop_assert_eq!(parsed.matches(&DomainName::parse(&name).unwrap()), matches_text(&pattern, &name));
    }

    #[test]
    fn the_kernels_walk_finds_what_the_patterns_say(
        patterns in proptest::collection::vec(pattern(), 1..20),
        name in name(),
    ) {
        let mut rule = EgressRule::default();
        rule.to.push(Destination { domain_names: patterns.clone(), ..Destination::default() });
        let spec = PolicySpec { egress: vec![rule], ..PolicySpec::default() };
        let policy = compile(&[Source { name: "Egg test/names".into(), spec: &spec }], &ResolvConf::default()).unwrap();
        let table: HashMap<u64, _> =
            policy.names.iter().map(|(name, masks)| (hash(name.wire(), &KEY), *masks)).collect();
        let name = DomainName::parse(&name).unwrap();
        let (value, masks) = judge_name(name.wire(), &KEY, |suffix| table.get(&suffix).copied(), &[]);
        let expected = patterns.iter().any(|text| NamePattern::parse(text).unwrap().matches(&name));
        prop_assert_eq!(value, hash(name.wire(), &KEY));
        prop_assert_eq!(masks, Masks { allow: u64::from(expected), deny: 0 });
    }

    #[test]
    fn names_come_back_from_text_and_wire(text in ".{0,80}") {
        if let Ok(name) = DomainName::parse(&text) {
            prop_assert_eq!(DomainName::parse(&name.to_string()), Ok(name.clone()));
            prop_assert_eq!(DomainName::from_wire(name.wire()), Some(name.clone()));
            prop_assert!(name.is_host());
        }
    }

    #[test]
    fn any_octets_are_a_name_or_not(octets in proptest::collection::vec(0..70u8, 0..300)) {
        if let Some(name) = DomainName::from_wire(&octets) {
            prop_assert_eq!(name.wire(), octets.to_ascii_lowercase());
            prop_assert!(!name.to_string().is_empty());
        }
    }

    #[test]
    fn noise_is_judged_without_panic(
        names in proptest::collection::vec(r"[*.a\PC]{0,20}", 0..4),
        suffixes in proptest::collection::vec(r"[.*a\PC]{0,20}", 0..3),
        regexes in proptest::collection::vec(r"[ab.*+?|()^$\\{},0-9\[\]-]{0,20}", 0..3),
        cidr in proptest::option::of(r"[0-9a-f:./+\PC]{0,24}"),
        except in proptest::collection::vec(r"[0-9a-f:./]{0,24}", 0..3),
        port in any::<Option<i32>>(),
        end_port in any::<Option<i32>>(),
    ) {
        let spec = PolicySpec {
            egress: vec![EgressRule {
                to: vec![Destination {
                    domain_names: names,
                    domain_suffixes: suffixes,
                    domain_regex: regexes,
                    cidr,
                    except,
                }],
                ports: vec![Port { protocol: Protocol::Tcp, port, end_port }],
                ..EgressRule::default()
            }],
            ..PolicySpec::default()
        };
        let problems = validate(&spec);
        let compiled = compile(&[Source { name: "Egg test/noise".into(), spec: &spec }], &ResolvConf::default());
        prop_assert_eq!(compiled.is_ok(), problems.is_empty());
    }
}
