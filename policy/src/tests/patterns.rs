//! Patterns that hashes cannot find: what the automaton says about names against what each pattern says.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::{CompileError, CompiledPolicy, DomainName, NamePattern, ResolvConf, Source, compile, validate};
use l7egg_crds::{Action, Destination, EgressRule, PolicySpec, Port, Protocol};
use l7egg_ebpf_common::abi::Masks;
use l7egg_ebpf_common::automaton::walk;
use l7egg_ebpf_common::name::{hash, judge_name};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

const KEY: [u32; 2] = [0x1234_5678, 0x0bcd_ef01];
/// Sets of patterns; each is asked about [`NAMES`] names.
const CASES: u32 = 1_700;
const NAMES: usize = 60;

fn spec(egress: Vec<EgressRule>) -> PolicySpec {
    PolicySpec { egress, ..PolicySpec::default() }
}

fn rule(to: Vec<Destination>) -> EgressRule {
    EgressRule { to, ..EgressRule::default() }
}

fn regexes(regexes: &[&str]) -> PolicySpec {
    let domain_regex = regexes.iter().map(|&regex| regex.to_owned()).collect();
    spec(vec![rule(vec![Destination { domain_regex, ..Destination::default() }])])
}

fn compiled(specs: &[&PolicySpec]) -> Result<CompiledPolicy, CompileError> {
    let sources: Vec<Source> = (0..)
        .zip(specs)
        .map(|(index, spec): (u32, _)| Source { name: format!("Egg test/{index}"), spec })
        .collect();
    compile(&sources, &ResolvConf::default())
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// Names of few letters, so that patterns and names meet.
fn any_name() -> impl Strategy<Value = String> {
    vec("[ab-]{1,3}", 1..5).prop_map(|labels| labels.join("."))
}

fn glob() -> impl Strategy<Value = String> {
    let label = prop_oneof!["[aB-]{1,2}", "[ab]?\\*[ab-]{1,2}", "[ab-]{1,2}\\*[ab]?", Just("*".to_owned())];
    (select(vec!["", "", "*.", "**."]), vec(label, 1..4))
        .prop_map(|(front, labels)| format!("{front}{}", labels.join(".")))
        .prop_filter("not stars alone", |text| NamePattern::parse(text).is_ok())
}

fn suffix() -> impl Strategy<Value = String> {
    (select(vec!["", "", "."]), any_name()).prop_map(|(front, name)| format!("{front}{name}"))
}

fn regex() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "a", "B", "b", "-", r"\.", ".", "[ab]", "[^a]", "[^.]", r"\w", "^", "$", r"\b", "ab", r"a\.b",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            4 => vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            2 => vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join("|"))),
            1 => (inner, select(vec!["*", "+", "?", "*?", "{2}", "{1,3}"]))
                .prop_map(|(part, count)| format!("(?:{part}){count}")),
        ]
    })
}

fn destination() -> impl Strategy<Value = Destination> {
    (vec(glob(), 0..4), vec(suffix(), 0..3), vec(regex(), 0..3)).prop_map(
        |(domain_names, domain_suffixes, domain_regex)| Destination {
            domain_names,
            domain_suffixes,
            domain_regex,
            ..Destination::default()
        },
    )
}

fn patterns(to: &Destination) -> Vec<NamePattern> {
    let names = to.domain_names.iter().map(|text| NamePattern::parse(text).unwrap());
    let suffixes = to.domain_suffixes.iter().map(|text| NamePattern::parse_suffix(text).unwrap());
    let regexes = to.domain_regex.iter().map(|text| NamePattern::parse_regex(text).unwrap());
    names.chain(suffixes).chain(regexes).collect()
}

/// 100,000 questions. What the compiler made and the kernel's walk finds is what each pattern says by itself.
#[test]
fn the_automaton_says_what_the_patterns_say() {
    let (asked, said, most) = (Cell::new(0u32), Cell::new(0u32), Cell::new(0));
    let strategy = (destination(), destination(), destination(), vec(any_name(), NAMES));
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&strategy, |(allowed, denied, on_port, names)| {
        let port = Port { protocol: Protocol::Tcp, port: Some(443), end_port: None };
        let rules = [
            rule(vec![allowed.clone()]),
            EgressRule { action: Action::Deny, ..rule(vec![denied.clone()]) },
            EgressRule { ports: vec![port], ..rule(vec![on_port.clone()]) },
        ];
        // An entry of `to` without any name is refused.
        let spec = spec(rules.into_iter().filter(|rule| rule.to[0] != Destination::default()).collect());
        let policy = compiled(&[&spec]).unwrap();
        most.set(policy.automaton.len().max(most.get()));
        let port_group = policy.port_groups.len().saturating_sub(1) as u32;
        let [allowed, denied, on_port] = [allowed, denied, on_port].map(|to| patterns(&to));
        let table: HashMap<u64, _> =
            policy.names.iter().map(|(name, masks)| (hash(name.wire(), &KEY), *masks)).collect();
        for text in names {
            let name = name(&text);
            let bit = |patterns: &[NamePattern]| u64::from(patterns.iter().any(|p| p.matches(&name)));
            let expected = Masks { allow: bit(&allowed) | bit(&on_port) << port_group, deny: bit(&denied) };
            let lookup = |suffix| table.get(&suffix).copied();
            let (_, masks) = judge_name(name.wire(), &KEY, lookup, &policy.automaton);
            prop_assert_eq!(masks, expected, "{} by {:#?}", name, spec.egress);
            asked.set(asked.get() + 1);
            said.set(said.get() + u32::from(!expected.is_empty()));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    println!("{} names, {} of them matched; {} states at most", asked.get(), said.get(), most.get());
    assert_eq!(asked.get(), CASES * NAMES as u32);
    assert!(said.get() > asked.get() / 10 && said.get() < asked.get() / 10 * 9);
    assert!(most.get() > 50, "small automata prove little");
}

/// Words that share nothing but by chance.
fn word(seed: u32) -> String {
    let mut state = u64::from(seed) * 2 + 1;
    let mut letter = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        char::from(b'a' + (state >> 40) as u8 % 26)
    };
    (0..6 + seed % 3).map(|_| letter()).collect()
}

/// A thousand of each kind, each about a domain of its own.
fn thousand_of_each(word: impl Fn(u32) -> String) -> PolicySpec {
    let thousand = |write: &dyn Fn(String) -> String| (0..1000).map(|seed| write(word(seed))).collect();
    let names = |domain_names| Destination { domain_names, ..Destination::default() };
    spec(vec![
        rule(vec![names(thousand(&|word| format!("{word}.example.com")))]),
        rule(vec![names(thousand(&|word| format!("*.{word}.example.com")))]),
        rule(vec![names(thousand(&|word| format!("**.{word}.example.com")))]),
        rule(vec![names(thousand(&|word| format!("api-*.{word}.example.net")))]),
        rule(vec![Destination {
            domain_suffixes: thousand(&|word| format!("{word}.example.de")),
            ..Destination::default()
        }]),
        rule(vec![Destination {
            domain_regex: thousand(&|word| format!(r"(de|en)[0-9]+\.{word}\.example\.org")),
            ..Destination::default()
        }]),
    ])
}

/// Each alone has a loop right behind the domain: all of them are in it at once.
fn thousand_below_one_domain() -> PolicySpec {
    let thousand = |write: &dyn Fn(String) -> String| (0..1000).map(|seed| write(word(seed))).collect();
    spec(vec![rule(vec![Destination {
        domain_names: thousand(&|word| format!("{word}-*.example.com")),
        domain_regex: thousand(&|word| format!(r"{word}.*\.example\.com")),
        ..Destination::default()
    }])])
}

#[test]
fn a_thousand_patterns_of_each_kind() {
    for (what, spec) in [
        ("words", thousand_of_each(word)),
        ("numbers", thousand_of_each(|seed| format!("host{seed}"))),
        ("loops below one domain", thousand_below_one_domain()),
    ] {
        let start = Instant::now();
        let policy = compiled(&[&spec]).unwrap();
        let took = start.elapsed();
        println!("thousands of {what}: {} states in {took:?}", policy.automaton.len());
        assert_eq!(validate(&spec), []);
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

#[test]
fn each_of_a_thousand_is_found() {
    let policy = compiled(&[&thousand_of_each(|seed| format!("host{seed}"))]).unwrap();
    for (text, expected) in [
        ("api-77.host500.example.net", true),
        ("ap-77.host500.example.net", false),
        ("x.somehost12.example.de", true),
        ("somehost1000.example.de", false),
        ("de42.host43.example.org", true),
        ("fr42.host43.example.org", false),
        ("de42.host1000.example.org", false),
    ] {
        assert_eq!(!walk(&policy.automaton, name(text).wire()).is_empty(), expected, "{text}");
    }
}

#[test]
fn equal_patterns_have_equal_automata() {
    let one = compiled(&[&regexes(&["a(b|c)", "x.*"]), &regexes(&["d+"])]).unwrap();
    let other = compiled(&[&regexes(&["dd*", "ab|ac"]), &regexes(&["x(.+)?"])]).unwrap();
    assert_eq!(one.automaton, other.automaton);
    assert_eq!(one.digest, other.digest);
    assert_ne!(one.digest, compiled(&[&regexes(&["d+"])]).unwrap().digest);
    assert_eq!(compiled(&[&regexes(&["[a&&b]", "/.*"])]).unwrap().automaton, []);
}

#[test]
fn dots_in_front_need_no_automaton() {
    let dots = Destination { domain_suffixes: vec![".ome.com".into()], ..Destination::default() };
    let policy = compiled(&[&spec(vec![rule(vec![dots])])]).unwrap();
    assert!(policy.automaton.is_empty());
    assert_eq!(policy.names[&name("ome.com")].any_labels, Masks { allow: 1, deny: 0 });
}

/// What grows without bounds is refused by name, soon.
#[test]
fn past_the_budget() {
    let both: Vec<String> = (0..20).map(|i| format!(".*left{i}z.*right{i}z.*")).collect();
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    for (what, hostile, path) in [
        ("far from the left", vec!["a", ".{20}x.*"], "spec.egress[0].to[0].domainRegex[1]: .{20}x.* needs"),
        ("twice far", vec!["a", "(.{200}|.{3})*x.{150}y.*"], "spec.egress[0].to[0].domainRegex[1]: "),
        (
            "a little too far",
            vec![".{14}x.*"],
            "spec.egress[0].to[0].domainRegex[0]: .{14}x.* needs an automaton of 32",
        ),
        ("many", both, "spec.egress: the patterns together need"),
    ] {
        let start = Instant::now();
        let problems = validate(&regexes(&hostile));
        println!("{what}: {:?} {:?}", start.elapsed(), problems);
        assert_eq!(problems.len(), 1);
        let text = problems[0].to_string();
        assert!(text.starts_with(path), "{text}");
        assert!(text.contains("16384"), "{text}");
        assert!(start.elapsed() < Duration::from_secs(60));
        assert!(matches!(compiled(&[&regexes(&hostile)]), Err(CompileError::Automaton { .. })));
    }
}
