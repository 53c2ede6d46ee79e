//! What mode Audit means, case by case.

use l7egg_crds::{Mode, PolicySpec};
use l7egg_ebpf_common::abi::{Direction, protocol};

use crate::{Flow, Judgement, ResolvConf, Source, Verdict, compile, judge, lookup_compiled};

/// An Egg that allows and denies these networks.
fn egg(mode: Mode, allow: &[&str], deny: &[&str]) -> PolicySpec {
    let rule = |action: &str, cidr: &&str| serde_json::json!({"action": action, "to": [{"cidr": cidr}]});
    let rules: Vec<_> = allow
        .iter()
        .map(|cidr| rule("Allow", cidr))
        .chain(deny.iter().map(|cidr| rule("Deny", cidr)))
        .collect();
    serde_json::from_value(serde_json::json!({"mode": mode, "egress": rules})).unwrap()
}

fn judged(eggs: &[PolicySpec], address: &str) -> Judgement {
    let sources: Vec<Source<'_>> =
        (0..).zip(eggs).map(|(n, spec): (u32, _)| Source { name: format!("Egg shop/{n}"), spec }).collect();
    let flow = Flow {
        protocol: protocol::TCP,
        address: address.parse().unwrap(),
        port: 443,
        direction: Direction::Egress,
    };
    let judgement = judge(&sources, &[].into(), &[], flow);
    let compiled = compile(&sources, &ResolvConf::default()).unwrap();
    assert_eq!(lookup_compiled(&compiled, &[], flow), judgement.verdict);
    judgement
}

#[test]
fn alone_it_denies_nothing() {
    let eggs = [egg(Mode::Audit, &["10.0.0.0/8"], &["10.9.0.0/16"])];
    assert_eq!(judged(&eggs, "10.0.0.1").verdict, Verdict::Allow);
    let denied = judged(&eggs, "10.9.0.1");
    assert_eq!(denied.verdict, Verdict::Audit);
    assert_eq!(
        denied.to_string(),
        "allowed, and would be denied if all Eggs were enforced: Egg shop/0 spec.egress[1], which has 10.9.0.0/16"
    );
    assert_eq!(judged(&eggs, "192.0.2.1").verdict, Verdict::Audit);
    assert_eq!(judged(&[egg(Mode::Audit, &[], &[])], "192.0.2.1").verdict, Verdict::Audit);
}

#[test]
fn beside_an_enforced_egg_it_opens_nothing_and_denies_nothing() {
    let eggs =
        [egg(Mode::Enforce, &["10.0.0.0/8"], &[]), egg(Mode::Audit, &["192.0.2.0/24"], &["10.9.0.0/16"])];
    assert_eq!(judged(&eggs, "10.0.0.1").verdict, Verdict::Allow);
    assert_eq!(judged(&eggs, "10.9.0.1").verdict, Verdict::Audit);
    assert_eq!(judged(&eggs, "192.0.2.1").verdict, Verdict::Deny);
    assert_eq!(judged(&eggs, "198.51.100.1").verdict, Verdict::Deny);
}

#[test]
fn an_enforced_egg_without_rules_still_denies_everything() {
    let eggs = [egg(Mode::Enforce, &[], &[]), egg(Mode::Audit, &["0.0.0.0/0"], &[])];
    assert_eq!(judged(&eggs, "192.0.2.1").verdict, Verdict::Deny);
}

#[test]
fn the_same_ports_in_both_modes_are_two_lists() {
    let rules = serde_json::json!([{"to": [{"cidr": "0.0.0.0/0"}], "ports": [{"port": 443}]}]);
    let spec = |mode| serde_json::from_value(serde_json::json!({"mode": mode, "egress": rules})).unwrap();
    let eggs: [PolicySpec; 2] = [spec(Mode::Enforce), spec(Mode::Audit)];
    let sources = eggs.each_ref().map(|spec| Source { name: "Egg shop/a".into(), spec });
    assert_eq!(compile(&sources, &ResolvConf::default()).unwrap().port_groups.len(), 2);
    assert_eq!(judged(&eggs, "192.0.2.1").verdict, Verdict::Allow);
}
