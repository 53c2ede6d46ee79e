//! Cases from a small world, so that rules, names and packets meet often.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use l7egg_crds::{Action, Destination, Dns, EgressRule, Mode, PolicySpec, Port, Protocol};
use l7egg_ebpf_common::abi::protocol;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::case::{Answer, Case, Packet, Query};
use crate::harness::RESOLVERS;

const NAMES: [&str; 7] = ["a.test", "b.a.test", "c.b.a.test", "x.test", "y.x.test", "test", "far.example"];
const PATTERNS: [&str; 18] = [
    "a.test",
    "*.a.test",
    "**.a.test",
    "b.a.test",
    "*.test",
    "**.test",
    "*.x.test",
    "far.example",
    "**.example",
    "C.B.A.Test.",
    "*r.example",
    "**.*a.test",
    "*.b*.test",
    "a.test.svc.cluster.test",
    "*.a.test.cluster.test",
    "*.svc.cluster.test",
    "**.shop.svc.cluster.test",
    "x*.cluster.test",
];
const SUFFIXES: [&str; 5] = ["st", ".test", "a.test", "r.example", "x.Test"];
const REGEXES: [&str; 6] = [
    "(b\\.)?a\\.test\\.svc\\.cluster\\.test",
    "[ay]\\.(a|x)\\.test",
    ".*\\.a\\.test",
    "(far\\.example|x.test)",
    "[^.]+",
    "c?.?b?.?a\\.test",
];
const CIDRS: [(&str, &[&str]); 9] = [
    ("198.18.0.0/15", &["198.18.1.0/24", "198.18.0.0/30"]),
    ("198.18.1.0/24", &["198.18.1.0/30"]),
    ("198.18.1.1/32", &[]),
    ("0.0.0.0/0", &["198.18.0.0/16", "198.18.1.2/31"]),
    ("::/0", &["2001:db8:18::/126"]),
    ("2001:db8:18::/48", &["2001:db8:18::1/128", "2001:db8:18:1::/64"]),
    ("2001:db8:18::/64", &[]),
    ("198.18.0.0/31", &[]),
    ("203.0.113.0/24", &[]),
];
const PORTS: [u16; 7] = [0, 53, 79, 80, 81, 443, 65535];

const DOMAINS: [&str; 4] = ["shop.svc.cluster.test", "svc.cluster.test", "cluster.test", "elsewhere.test"];
const SERVERS: [&[&str]; 6] = [
    &["198.18.0.53/32"],
    &["2001:db8:18::53/128"],
    &["198.18.0.0/24", "2001:db8:18::/48"],
    &["0.0.0.0/0"],
    &["::/0"],
    &["203.0.113.53/32"],
];
/// `minTTL` and `maxTTL`.
const BOUNDS: [[Option<&str>; 2]; 6] = [
    [None, None],
    [Some("0s"), None],
    [None, Some("0s")],
    [Some("0s"), Some("0s")],
    [Some("0s"), Some("1h")],
    [Some("1h"), Some("2h")],
];

/// Whole cases.
pub fn cases() -> impl Strategy<Value = Case> {
    let own_search = prop_oneof![3 => Just(Vec::new()), 1 => Just(vec!["elsewhere.test".to_owned()])];
    (vec(egg(), 1..4), own_search, vec(answer(), 0..5), vec(query(), 2..8), vec(packet(), 20..60)).prop_map(
        |(eggs, own_search, history, queries, flows)| Case { eggs, own_search, history, queries, flows },
    )
}

/// What names and addresses an answer has: now and then it says that one name is another, or may be used for no time at all.
fn answer() -> impl Strategy<Value = Answer> {
    let aliases = prop_oneof![2 => Just(Vec::new()), 1 => vec(name(), 1..4)];
    let ttl = prop_oneof![2 => Just(300), 1 => Just(0)];
    let question = prop_oneof![
        2 => (name(), resolver()).prop_map(|(name, resolver)| Query { name, resolver }),
        1 => query(),
    ];
    (question, aliases, ttl, vec(address(), 1..4)).prop_map(|(query, aliases, ttl, addresses)| Answer {
        query,
        aliases,
        ttl,
        addresses,
    })
}

/// A name as programs ask for it: alone, or with one or two of the pod's search domains behind it.
fn query() -> impl Strategy<Value = Query> {
    let behind = vec(select(DOMAINS.as_slice()), 0..3)
        .prop_map(|domains| domains.iter().map(|domain| format!(".{domain}")).collect::<String>());
    (name(), behind, resolver())
        .prop_map(|(name, behind, resolver)| Query { name: format!("{name}{behind}"), resolver })
}

fn name() -> impl Strategy<Value = String> {
    select(NAMES.as_slice()).prop_map(str::to_owned)
}

fn resolver() -> impl Strategy<Value = IpAddr> {
    select(RESOLVERS.as_slice()).prop_map(|text| text.parse().expect("an address"))
}

fn dns() -> impl Strategy<Value = Dns> {
    let servers = prop_oneof![
        2 => Just(Vec::new()),
        1 => select(SERVERS.as_slice()).prop_map(|list| list.iter().map(|text| (*text).to_owned()).collect()),
    ];
    let refuse_unmatched = any::<bool>();
    let grace = prop_oneof![2 => Just(None), 1 => Just(Some("0s")), 1 => Just(Some("1h"))];
    (servers, refuse_unmatched, select(BOUNDS.as_slice()), grace).prop_map(
        |(servers, refuse_unmatched, [least, most], grace)| {
            let time = |text: Option<&str>| text.map(|text| text.parse().expect("a time"));
            Dns {
                servers,
                refuse_unmatched,
                min_ttl: time(least),
                max_ttl: time(most),
                ttl_grace: time(grace),
                ..Dns::default()
            }
        },
    )
}

fn egg() -> impl Strategy<Value = PolicySpec> {
    let dns = prop_oneof![3 => Just(None), 2 => dns().prop_map(Some)];
    let mode = prop_oneof![2 => Just(Mode::Enforce), 1 => Just(Mode::Audit)];
    let containers = prop_oneof![
        12 => Just(Vec::new()),
        2 => Just(vec!["app".to_owned()]),
        1 => Just(vec!["other".to_owned()]),
    ];
    (mode, vec(rule(), 0..4), dns, containers).prop_map(|(mode, egress, dns, containers)| PolicySpec {
        containers,
        mode,
        egress,
        dns,
        ..PolicySpec::default()
    })
}

fn rule() -> impl Strategy<Value = EgressRule> {
    let action = prop_oneof![4 => Just(Action::Allow), 1 => Just(Action::Deny)];
    (action, vec(destination(), 1..3), vec(port(), 0..3)).prop_map(|(action, to, ports)| EgressRule {
        action,
        to,
        ports,
    })
}

fn destination() -> impl Strategy<Value = Destination> {
    let names = vec(select(PATTERNS.as_slice()).prop_map(str::to_owned), 1..3)
        .prop_map(|domain_names| Destination { domain_names, ..Destination::default() });
    let suffixes = vec(select(SUFFIXES.as_slice()).prop_map(str::to_owned), 1..3)
        .prop_map(|domain_suffixes| Destination { domain_suffixes, ..Destination::default() });
    let regexes = vec(select(REGEXES.as_slice()).prop_map(str::to_owned), 1..3)
        .prop_map(|domain_regex| Destination { domain_regex, ..Destination::default() });
    let cidr = (select(CIDRS.as_slice()), any::<bool>()).prop_map(|((cidr, excepts), with)| Destination {
        cidr: Some(cidr.into()),
        except: if with { excepts.iter().map(|text| (*text).to_owned()).collect() } else { Vec::new() },
        ..Destination::default()
    });
    prop_oneof![3 => names, 1 => suffixes, 1 => regexes, 3 => cidr]
}

fn port() -> impl Strategy<Value = Port> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    prop_oneof![
        1 => Just(Port { protocol: Protocol::Icmp, port: None, end_port: None }),
        1 => select(protocols.to_vec()).prop_map(|protocol| Port { protocol, port: None, end_port: None }),
        4 => (select(protocols.to_vec()), select(&PORTS[1..]), select(&PORTS[1..]), any::<bool>()).prop_map(
            |(protocol, one, two, range)| Port {
                protocol,
                port: Some(one.min(two).into()),
                end_port: range.then(|| one.max(two).into()),
            }
        ),
    ]
}

fn packet() -> impl Strategy<Value = Packet> {
    let protocols = [protocol::TCP, protocol::UDP, protocol::SCTP, protocol::ICMP, 47];
    (select(protocols.to_vec()), address(), select(PORTS.as_slice())).prop_map(|(number, address, port)| {
        let number = if number == protocol::ICMP && address.is_ipv6() { protocol::ICMPV6 } else { number };
        Packet { protocol: number, address, port }
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0u8..3, 0u8..5).prop_map(|(c, d)| IpAddr::V4(Ipv4Addr::new(198, 18, c, d)));
    let v6 = (0u16..2, 0u16..5)
        .prop_map(|(net, host)| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x18, net, 0, 0, 0, host)));
    let resolver = select(vec![
        IpAddr::V4(Ipv4Addr::new(198, 18, 0, 53)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, 0x53)),
    ]);
    prop_oneof![8 => v4, 8 => v6, 1 => resolver]
}
