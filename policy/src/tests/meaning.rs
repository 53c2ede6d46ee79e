//! The meaning of Eggs, sentence by sentence: verdicts and the reasons given to people.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::{DomainName, Flow, ReadSpecs, ResolvConf, Sender, Source, Why, is_divided, judge, judge_sender};
use l7egg_crds::{Dns, Mode, PolicySpec};
use l7egg_ebpf_common::abi::Direction;

const CHECKOUT: &str = "
- to: [{domainNames: [api.stripe.com, '*.debian.org']}]
  ports: [{port: 443}]
- to: [{cidr: 10.0.0.0/8, except: [10.9.0.0/16]}, {cidr: '2001:db8::/32'}]
  ports: [{port: 8000, endPort: 8100}, {protocol: UDP}]
";
const BASELINE: &str = "
- to: [{cidr: 192.0.2.0/24}]
- action: Deny
  to: [{cidr: 10.1.0.0/16}, {domainNames: ['**.debian.org']}]
  ports: [{port: 8080}]
";

/// What is said about a flow of a pod that both select, whose DNS server is 10.1.0.10.
fn said(flow: Flow, learned: &[&str]) -> String {
    let [checkout, baseline] = [CHECKOUT, BASELINE]
        .map(|egress| PolicySpec { egress: serde_yaml::from_str(egress).unwrap(), ..PolicySpec::default() });
    let sources = [
        Source { name: "Egg shop/checkout".into(), spec: &checkout },
        Source { name: "ClusterEgg baseline".into(), spec: &baseline },
    ];
    let resolvers: BTreeSet<IpAddr> = ["10.1.0.10".parse().unwrap()].into();
    let learned: Vec<DomainName> = learned.iter().map(|name| DomainName::parse(name).unwrap()).collect();
    judge(&sources, &resolvers, &learned, flow).to_string()
}

fn flow(protocol: u8, address: &str, port: u16) -> Flow {
    Flow { protocol, address: address.parse().unwrap(), port, direction: Direction::Egress }
}

fn tcp(address: &str, port: u16) -> Flow {
    flow(6, address, port)
}

#[test]
fn a_pod_without_eggs_is_untouched() {
    let judgement = judge(&[], &BTreeSet::new(), &[], tcp("192.0.2.1", 80));
    assert_eq!(judgement.to_string(), "allowed: no Egg selects the pod");
}

#[test]
fn names_open_the_addresses_learned_by_them() {
    assert_eq!(
        said(tcp("198.51.100.7", 443), &["cdn.example", "API.stripe.com"]),
        "allowed: Egg shop/checkout spec.egress[0], which has api.stripe.com, and the address was learned by api.stripe.com"
    );
    assert_eq!(
        said(tcp("198.51.100.7", 443), &["debian.org", "a.b.debian.org"]),
        "denied: no rule allows it"
    );
}

#[test]
fn patterns_are_told_as_they_are_written() {
    let spec = PolicySpec {
        egress: serde_yaml::from_str(
            r"[{to: [{domainNames: ['api-*.Example.com'], domainSuffixes: [ome.com, .debian.org], domainRegex: ['(de|en)\.wikipedia\.org']}]}]",
        )
        .unwrap(),
        ..PolicySpec::default()
    };
    let sources = [Source { name: "Egg shop/patterns".into(), spec: &spec }];
    for (name, pattern) in [
        ("api-7.example.com", "api-*.example.com"),
        ("www.rome.com", "domainSuffixes ome.com"),
        ("deb.debian.org", "domainSuffixes .debian.org"),
        ("DE.wikipedia.org", r"domainRegex (de|en)\.wikipedia\.org"),
    ] {
        let learned = DomainName::parse(name).unwrap();
        assert_eq!(
            judge(&sources, &BTreeSet::new(), std::slice::from_ref(&learned), tcp("192.0.2.1", 443))
                .to_string(),
            format!(
                "allowed: Egg shop/patterns spec.egress[0], which has {pattern}, and the address was learned by {learned}"
            )
        );
    }
    let evil = DomainName::parse("home.com.evil.net").unwrap();
    let judged = judge(&sources, &BTreeSet::new(), &[evil], tcp("192.0.2.1", 443));
    assert_eq!(judged.to_string(), "denied: no rule allows it");
}

#[test]
fn ports_belong_to_their_own_rule() {
    assert_eq!(
        said(tcp("198.51.100.7", 8000), &["api.stripe.com"]),
        "denied: no rule allows it; Egg shop/checkout spec.egress[0] allows the destination, on other ports"
    );
}

#[test]
fn cidrs_without_their_excepts() {
    assert_eq!(
        said(tcp("10.2.3.4", 8100), &[]),
        "allowed: Egg shop/checkout spec.egress[1], which has 10.0.0.0/8"
    );
    assert_eq!(
        said(flow(17, "2001:db8::1", 9), &[]),
        "allowed: Egg shop/checkout spec.egress[1], which has 2001:db8::/32"
    );
    assert_eq!(said(tcp("10.9.3.4", 8100), &[]), "denied: no rule allows it");
    assert_eq!(said(tcp("::ffff:10.2.3.4", 8100), &[]), said(tcp("10.2.3.4", 8100), &[]));
}

#[test]
fn union_of_all_eggs() {
    let any = "allowed: ClusterEgg baseline spec.egress[0], which has 192.0.2.0/24";
    assert_eq!(said(tcp("192.0.2.1", 1), &[]), any);
    // Without ports a rule is about protocols that have none, too: here GRE.
    assert_eq!(said(flow(47, "192.0.2.1", 0), &[]), any);
}

#[test]
fn deny_beats_allow() {
    assert_eq!(
        said(tcp("10.1.3.4", 8080), &[]),
        "denied: ClusterEgg baseline spec.egress[1], which has 10.1.0.0/16"
    );
    assert_eq!(
        said(tcp("10.1.3.4", 8081), &[]),
        "allowed: Egg shop/checkout spec.egress[1], which has 10.0.0.0/8"
    );
    assert_eq!(
        said(tcp("192.0.2.1", 8080), &["www.debian.org"]),
        "denied: ClusterEgg baseline spec.egress[1], which has **.debian.org, and the address was learned by www.debian.org"
    );
}

#[test]
fn always_free() {
    assert_eq!(said(tcp("127.0.0.1", 1), &[]), "allowed: loopback is always free");
    assert_eq!(said(tcp("::1", 1), &[]), "allowed: loopback is always free");
    let reply = Flow { direction: Direction::Ingress, ..tcp("203.0.113.9", 40000) };
    assert_eq!(said(reply, &[]), "allowed: the other side opened the connection");
    let dns = "allowed: DNS to the pod's own DNS server is always free";
    assert_eq!(said(flow(17, "10.1.0.10", 53), &[]), dns);
    assert_eq!(said(tcp("10.1.0.10", 53), &[]), dns);
    assert_eq!(
        said(tcp("10.1.0.10", 54), &[]),
        "denied: no rule allows it; Egg shop/checkout spec.egress[1] allows the destination, on other ports"
    );
    assert_eq!(said(tcp("192.168.0.10", 53), &[]), "denied: no rule allows it");
}

#[test]
fn an_egg_for_certain_containers_counts_for_these() {
    let spec = |containers: &[&str], cidr: &str, mode| PolicySpec {
        containers: containers.iter().map(|name| (*name).into()).collect(),
        mode,
        egress: serde_yaml::from_str(&format!("[{{to: [{{cidr: {cidr}}}]}}]")).unwrap(),
        ..PolicySpec::default()
    };
    let said = |specs: &[PolicySpec], sender, address| {
        let sources: Vec<Source<'_>> =
            specs.iter().map(|spec| Source { name: "Egg shop/a".into(), spec }).collect();
        let resolvers: BTreeSet<IpAddr> = ["10.1.0.10".parse().unwrap()].into();
        judge_sender(&ReadSpecs::default(), &sources, sender, &resolvers, &[], tcp(address, 53)).to_string()
    };
    let (app, init, free) = (Sender::Container("app"), Sender::Container("init"), Sender::Container("free"));
    let enforce = [spec(&["app", "init"], "10.0.0.0/8", Mode::Enforce)];
    let allowed = "allowed: Egg shop/a spec.egress[0], which has 10.0.0.0/8";
    for sender in [app, init] {
        assert_eq!(said(&enforce, sender, "10.1.2.3"), allowed);
        assert_eq!(said(&enforce, sender, "192.0.2.1"), "denied: no rule allows it");
    }
    assert_eq!(said(&enforce, free, "192.0.2.1"), "allowed: no Egg selects the pod");
    let nobody = "some Egg is for certain containers of the pod, and this comes from none of its containers that is known";
    assert_eq!(said(&enforce, Sender::Nobody, "10.1.2.3"), format!("denied: {nobody}"));
    assert_eq!(
        said(&enforce, Sender::Nobody, "10.1.0.10"),
        "allowed: DNS to the pod's own DNS server is always free"
    );
    // One for all containers counts beside it.
    let both = [enforce[0].clone(), spec(&[], "192.0.2.0/24", Mode::Enforce)];
    assert!(said(&both, app, "192.0.2.1").starts_with("allowed: Egg shop/a spec.egress[0]"));
    assert_eq!(said(&both, app, "10.1.2.3"), allowed);
    assert_eq!(said(&both, free, "10.1.2.3"), "denied: no rule allows it");
    // Where nothing is enforced, nothing is denied.
    let audit = [spec(&["app"], "10.0.0.0/8", Mode::Audit)];
    let recorded = "allowed, and would be denied if all Eggs were enforced";
    assert_eq!(said(&audit, Sender::Nobody, "10.1.2.3"), format!("{recorded}: {nobody}"));
    // Without such an Egg the sender does not matter.
    let all = [spec(&[], "10.0.0.0/8", Mode::Enforce)];
    assert_eq!(said(&all, Sender::Nobody, "10.1.2.3"), allowed);
    assert!(!is_divided(&[Source { name: String::new(), spec: &all[0] }]));
}

#[test]
fn an_egg_says_which_of_the_pods_dns_servers_are_believed() {
    let spec = |servers: &[&str], mode| PolicySpec {
        mode,
        dns: Some(Dns { servers: servers.iter().map(|text| (*text).into()).collect(), ..Dns::default() }),
        ..PolicySpec::default()
    };
    let believed_by = |specs: &[PolicySpec]| {
        let sources: Vec<Source<'_>> =
            specs.iter().map(|spec| Source { name: "Egg shop/a".into(), spec }).collect();
        let resolv_conf = ResolvConf {
            own_search: [DomainName::parse("own.test").unwrap()].into(),
            ..ResolvConf::of_servers(["10.1.0.10", "fd00::a", "192.0.2.53"].map(|text| text.parse().unwrap()))
        };
        let ResolvConf { servers: believed, search, .. } = resolv_conf.believed(&sources);
        let servers = resolv_conf.servers;
        assert_eq!(search.is_empty(), believed.len() < servers.len(), "the pod's own search domains");
        for server in &servers {
            // The oracle and what is compiled say the same, also of what belongs to no container.
            let free = |sender| {
                let judged = judge_sender(
                    &ReadSpecs::default(),
                    &sources,
                    sender,
                    &servers,
                    &[],
                    flow(17, &server.to_string(), 53),
                );
                judged.why == Why::OwnResolver
            };
            assert_eq!(free(Sender::Container("app")), believed.contains(server), "{server}");
            assert_eq!(free(Sender::Nobody), believed.contains(server), "{server}");
        }
        believed.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let (enforce, audit) = (Mode::Enforce, Mode::Audit);
    let all = ["10.1.0.10", "192.0.2.53", "fd00::a"];
    assert_eq!(believed_by(&[spec(&[], enforce)]), all);
    assert_eq!(believed_by(&[spec(&["10.0.0.0/8", "fd00::/16"], enforce)]), ["10.1.0.10", "fd00::a"]);
    // Each has to believe it.
    let two =
        [spec(&["10.0.0.0/8", "fd00::/16"], enforce), spec(&["10.1.0.10/32"], enforce), spec(&[], enforce)];
    assert_eq!(believed_by(&two), ["10.1.0.10"]);
    assert!(believed_by(&[spec(&["10.0.0.0/8"], enforce), spec(&["192.0.2.53/32"], enforce)]).is_empty());
    // Eggs in mode Audit count where there are no others.
    assert_eq!(believed_by(&[spec(&["10.0.0.0/8"], audit), spec(&[], enforce)]), all);
    assert_eq!(believed_by(&[spec(&["10.0.0.0/8"], audit)]), ["10.1.0.10"]);
    // What cannot be read holds nobody.
    assert!(believed_by(&[spec(&["10.0.0.0"], enforce)]).is_empty());
}
