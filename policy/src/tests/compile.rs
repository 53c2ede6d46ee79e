//! What compiled policies look like, on small Eggs written as users write them.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::{
    CompileError, CompiledPolicy, DomainName, Network, PortPrefix, ResolvConf, Source, compile, to_number,
};
use l7egg_crds::{Destination, EgressRule, PolicySpec};
use l7egg_ebpf_common::abi::Masks;

fn spec(egress: &str) -> PolicySpec {
    PolicySpec { egress: serde_yaml::from_str(egress).unwrap(), ..PolicySpec::default() }
}

fn sources(specs: &[PolicySpec]) -> Vec<Source<'_>> {
    (0..)
        .zip(specs)
        .map(|(index, spec): (u32, _)| Source { name: format!("Egg test/{index}"), spec })
        .collect()
}

fn compiled(specs: &[PolicySpec]) -> CompiledPolicy {
    compile(&sources(specs), &ResolvConf::default()).unwrap()
}

fn cidrs(policy: &CompiledPolicy) -> Vec<(Network, u64, u64)> {
    policy.cidrs.iter().map(|(network, masks)| (*network, masks.allow, masks.deny)).collect()
}

fn network(text: &str) -> Network {
    Network::parse(text).unwrap()
}

const ALL_IPV4: Network = crate::IPV4_SPACE;

#[test]
fn no_rules_compile_to_nothing() {
    for nothing in [compiled(&[]), compiled(&[spec("[]")])] {
        assert!(nothing.names.is_empty() && nothing.cidrs.is_empty() && nothing.ports.is_empty());
    }
}

#[test]
fn names_carry_masks_by_what_stands_in_front() {
    let policy = compiled(&[spec(
        "[{to: [{domainNames: [a.example, '*.A.example', '**.example']}]},
          {action: Deny, to: [{domainNames: [a.example.]}], ports: [{port: 25}]}]",
    )]);
    assert_eq!(policy.names.len(), 2);
    let name = &policy.names[&DomainName::parse("a.example").unwrap()];
    // Group 0 is "no ports", group 1 is TCP 25.
    assert_eq!(name.exact, Masks { allow: 1, deny: 2 });
    assert_eq!(name.one_label, Masks { allow: 1, deny: 0 });
    assert_eq!(name.any_labels, Masks::NONE);
    let parent = &policy.names[&DomainName::parse("example").unwrap()];
    assert_eq!((parent.exact, parent.any_labels), (Masks::NONE, Masks { allow: 1, deny: 0 }));
}

#[test]
fn longer_cidrs_repeat_what_shorter_ones_say() {
    let policy = compiled(&[
        spec("[{to: [{cidr: 10.0.0.0/8, except: [10.9.0.0/16]}], ports: [{port: 80}]}]"),
        spec("[{to: [{cidr: 10.9.1.0/24}, {cidr: 10.1.0.0/16}], ports: [{port: 443}]}]"),
    ]);
    assert_eq!(
        cidrs(&policy),
        [
            (network("10.0.0.0/8"), 0b01, 0),
            (network("10.1.0.0/16"), 0b11, 0),
            (network("10.9.0.0/16"), 0, 0),
            (network("10.9.1.0/24"), 0b10, 0),
        ]
    );
}

#[test]
fn an_except_takes_from_its_own_rule_only() {
    let policy = compiled(&[spec(
        "[{to: [{cidr: 10.0.0.0/8, except: [10.9.0.0/16, 10.9.9.0/24]}]}, {to: [{cidr: 10.9.0.0/16}]}]",
    )]);
    // Together they are all of 10.0.0.0/8, and one entry says so.
    assert_eq!(cidrs(&policy), [(network("10.0.0.0/8"), 1, 0)]);
}

#[test]
fn everything_of_ipv6_is_not_ipv4() {
    let policy =
        compiled(&[spec("[{to: [{cidr: '::/0'}]}, {to: [{cidr: 10.0.0.0/8}], ports: [{port: 1}]}]")]);
    assert_eq!(cidrs(&policy), [(network("::/0"), 1, 0), (ALL_IPV4, 0, 0), (network("10.0.0.0/8"), 2, 0)]);
    let policy = compiled(&[spec("[{to: [{cidr: '::/0'}]}, {to: [{cidr: 0.0.0.0/0}], ports: [{port: 1}]}]")]);
    assert_eq!(cidrs(&policy), [(network("::/0"), 1, 0), (ALL_IPV4, 2, 0)]);
    // On the same ports they say the same, and the longer one needs no entry.
    let policy = compiled(&[spec("[{to: [{cidr: '::/0'}, {cidr: 0.0.0.0/0}]}]")]);
    assert_eq!(cidrs(&policy), [(network("::/0"), 1, 0)]);
}

#[test]
fn ports_repeat_what_wider_ports_say() {
    let policy = compiled(&[spec(
        "[{to: [{cidr: 10.0.0.0/8}]},
          {to: [{cidr: 10.0.0.0/8}], ports: [{protocol: TCP}]},
          {to: [{cidr: 10.0.0.0/8}], ports: [{port: 8000, endPort: 8003}]},
          {to: [{cidr: 10.0.0.0/8}], ports: [{port: 8002}, {protocol: ICMP}]}]",
    )]);
    let of = |protocol, port, length| policy.ports.get(&PortPrefix { protocol, port, length }).copied();
    // In order of the lists: any, ICMP with TCP 8002, TCP, TCP 8000 to 8003.
    assert_eq!(of(0, 0, 0), Some(0b0001));
    assert_eq!(of(1, 0, 8), Some(0b0011));
    assert_eq!(of(6, 0, 8), Some(0b0101));
    assert_eq!(of(6, 8000, 23), Some(0b1101));
    assert_eq!(of(6, 8002, 24), Some(0b1111));
    assert_eq!(of(6, 8003, 24), Some(0b1101));
    assert_eq!(policy.ports.len(), 6);
}

#[test]
fn equal_policies_have_equal_digests() {
    let (a, b) = (spec("[{to: [{cidr: 10.0.0.0/8}]}]"), spec("[{to: [{domainNames: [b.example]}]}]"));
    let resolvers = ResolvConf::of_servers(["10.0.0.10".parse().unwrap()]);
    let one = compile(&sources(&[a.clone(), b.clone()]), &resolvers).unwrap();
    let other = compile(&sources(&[b.clone(), a.clone(), b.clone()]), &resolvers).unwrap();
    assert_eq!(one, other);
    assert_eq!(one.resolvers, [to_number("::ffff:10.0.0.10".parse().unwrap())].into());
    let digests = [
        one.digest,
        compile(&sources(&[a.clone(), b.clone()]), &ResolvConf::default()).unwrap().digest,
        compile(&sources(std::slice::from_ref(&a)), &resolvers).unwrap().digest,
        compile(&sources(&[b]), &resolvers).unwrap().digest,
        compile(&[], &resolvers).unwrap().digest,
    ];
    assert_eq!(BTreeSet::from(digests).len(), digests.len());
}

#[test]
fn sixty_four_port_lists_and_no_more() {
    let ports = |from: u32, count: u32| {
        let rules = (from..from + count)
            .map(|port| format!("{{to: [{{cidr: 10.0.0.0/8}}], ports: [{{port: {port}}}]}}"));
        spec(&format!("[{}]", rules.collect::<Vec<_>>().join(", ")))
    };
    let most = compiled(&[ports(1, 40), ports(30, 35)]);
    assert_eq!(most.port_groups.len(), 64);
    assert_eq!(most.cidrs[&network("10.0.0.0/8")].allow, u64::MAX);
    let specs = [ports(1, 40), ports(30, 36)];
    let error = compile(&sources(&specs), &ResolvConf::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Egg test/0, Egg test/1 together have 65 different lists of ports, and 64 is the most for one pod: \
         use the same lists in more rules, or select the pod with fewer Eggs"
    );
}

#[test]
fn of_many_eggs_that_do_not_fit_together_a_few_are_named() {
    let specs: Vec<PolicySpec> = (1..=100)
        .map(|port| spec(&format!("[{{to: [{{cidr: 10.0.0.0/8}}], ports: [{{port: {port}}}]}}]")))
        .collect();
    let error = compile(&sources(&specs), &ResolvConf::default()).unwrap_err().to_string();
    assert!(error.contains("Egg test/4 and 95 more together have 100 different lists"), "{error}");
    assert!(!error.contains("Egg test/5,"), "{error}");
}

#[test]
fn what_should_not_have_been_accepted_is_named() {
    let specs = [spec("[]"), spec("[{to: [{cidr: 10.0.0.1/8}]}]")];
    let error = compile(&sources(&specs), &ResolvConf::default()).unwrap_err();
    assert!(matches!(error, CompileError::Invalid { .. }));
    let text = error.to_string();
    assert!(text.starts_with("Egg test/1 is not valid: spec.egress[0].to[0].cidr: "), "{text}");
}

/// 100,000 cidrs, nested three deep, in the time that an unoptimised build has for it.
#[test]
fn a_hundred_thousand_cidrs() {
    let block = |index: u32| match index % 3 {
        0 => format!("10.{}.{}.0/24", index >> 8 & 255, index & 255),
        1 => format!("10.{}.{}.{}/32", index >> 8 & 255, index & 255, index >> 16),
        _ => format!("2001:db8:{:x}::/48", index & 0xffff),
    };
    let rule = |rule: u32| EgressRule {
        to: (0..1000)
            .map(|index| Destination { cidr: Some(block(rule * 1000 + index)), ..Destination::default() })
            .chain([Destination { cidr: Some("10.0.0.0/8".to_owned()), ..Destination::default() }])
            .take(1000)
            .collect(),
        ..EgressRule::default()
    };
    let specs: Vec<PolicySpec> = (0..2u32)
        .map(|egg| PolicySpec {
            egress: (egg * 50..egg * 50 + 50).map(rule).collect(),
            ..PolicySpec::default()
        })
        .collect();
    let start = Instant::now();
    let policy = compiled(&specs);
    let took = start.elapsed();
    println!("100,000 cidrs compiled to {} entries in {took:?}", policy.cidrs.len());
    assert!(policy.cidrs.len() > 40_000);
    assert!(took.as_secs() < 10, "{took:?}: no longer O(n log n)?");
}
