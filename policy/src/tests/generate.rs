//! Small worlds in which everything overlaps: few labels, few bits, few ports, and flows to the edges of what
//! the Eggs name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{DomainName, Flow, ResolvConf};
use ipnetwork::IpNetwork;
use l7egg_crds::{Action, Destination, Dns, EgressRule, Mode, PolicySpec, Port, Protocol};
use l7egg_ebpf_common::abi::Direction;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Flows in each world.
pub const FLOWS: usize = 60;

/// Eggs that select one pod, and what it tries.
#[derive(Debug)]
pub struct World {
    /// The Eggs.
    pub specs: Vec<PolicySpec>,
    /// What the pod's resolver is told.
    pub resolv_conf: ResolvConf,
    /// Flows, each with the names by which its address was learned.
    pub flows: Vec<(Flow, Vec<DomainName>)>,
}

/// Search domains, one of them below another.
const SEARCH: [&str; 2] = ["shop.svc.k8s.test", "svc.k8s.test"];
const OWN_SEARCH: &str = "corp";

/// A name as programs ask for it: as it is, and with each search domain behind it.
pub fn with_search(name: &DomainName, resolv_conf: &ResolvConf) -> Vec<DomainName> {
    let domains = resolv_conf.search.iter().chain(&resolv_conf.own_search);
    let searched = domains.map(|domain| [name.wire(), domain.wire()].concat());
    let searched = searched.filter_map(|wire| DomainName::from_wire(&wire));
    std::iter::once(name.clone()).chain(searched).collect()
}

/// Any world.
pub fn world() -> impl Strategy<Value = World> {
    let resolvers = vec(select(vec!["10.0.0.1", "10.0.3.3", "2001:db8::1"]), 0..3);
    (vec(spec(), 1..4), resolvers, vec(flow(), FLOWS)).prop_map(|(specs, resolvers, raw)| {
        let edges = edges(&specs);
        let ports = ports_of(&specs);
        let flows = raw.into_iter().map(|raw| raw.finish(&edges, &ports)).collect();
        let resolv_conf = ResolvConf {
            servers: resolvers.into_iter().map(|text| text.parse().unwrap()).collect(),
            search: SEARCH.iter().map(|domain| DomainName::parse(domain).unwrap()).collect(),
            own_search: [DomainName::parse(OWN_SEARCH).unwrap()].into(),
        };
        World { specs, resolv_conf, flows }
    })
}

fn spec() -> impl Strategy<Value = PolicySpec> {
    let servers =
        prop_oneof![2 => Just(vec![]), 1 => vec(network().prop_map(|network| network.to_string()), 1..3)];
    let dns = proptest::option::of((any::<bool>(), servers).prop_map(|(refuse_unmatched, servers)| Dns {
        refuse_unmatched,
        servers,
        ..Dns::default()
    }));
    let mode = prop_oneof![2 => Just(Mode::Enforce), 1 => Just(Mode::Audit)];
    (mode, vec(rule(), 0..5), dns).prop_map(|(mode, egress, dns)| PolicySpec {
        mode,
        egress,
        dns,
        ..PolicySpec::default()
    })
}

fn rule() -> impl Strategy<Value = EgressRule> {
    let action = prop_oneof![3 => Just(Action::Allow), 1 => Just(Action::Deny)];
    let ports = prop_oneof![1 => Just(vec![]), 3 => vec(port(), 1..4)];
    (action, vec(destination(), 1..5), ports).prop_map(|(action, to, ports)| EgressRule { action, to, ports })
}

fn destination() -> impl Strategy<Value = Destination> {
    prop_oneof![block(), names()]
}

fn names() -> impl Strategy<Value = Destination> {
    let pattern = (select(vec!["", "*.", "**.", "*", "a*."]), whole_name())
        .prop_map(|(stars, name)| format!("{stars}{name}"));
    let suffix = (select(vec!["", "."]), whole_name()).prop_map(|(dot, name)| format!("{dot}{name}"));
    let regexes = [r"(a|b)\.a", r"a.*", r".*\.B", r"[ab]+", r"a\.(.*\.)?svc\.k8s\.test", r"[ab]+\.[bc].*"];
    let regex = select(regexes.to_vec()).prop_map(str::to_owned);
    (vec(pattern, 1..4), vec(suffix, 0..2), vec(regex, 0..2)).prop_map(
        |(domain_names, domain_suffixes, domain_regex)| Destination {
            domain_names,
            domain_suffixes,
            domain_regex,
            ..Destination::default()
        },
    )
}

/// A name, or one as it is whole with a search domain behind it, or a part of one.
fn whole_name() -> impl Strategy<Value = String> {
    let domain = select([&SEARCH[..], &[OWN_SEARCH, "k8s.test"]].concat());
    prop_oneof![
        4 => name(),
        1 => (name(), domain.clone()).prop_map(|(name, domain)| format!("{name}.{domain}")),
        1 => domain.prop_map(str::to_owned),
    ]
}

/// One to three labels of two letters: 14 names in all.
fn name() -> impl Strategy<Value = String> {
    vec(select(vec!["a", "B"]), 1..4).prop_map(|labels| labels.join("."))
}

fn block() -> impl Strategy<Value = Destination> {
    (network(), vec(network_inside(), 0..4)).prop_map(|(cidr, parts)| {
        let except = parts.into_iter().filter_map(|part| inside(cidr, part)).map(|part| part.to_string());
        Destination { cidr: Some(cidr.to_string()), except: except.collect(), ..Destination::default() }
    })
}

/// Networks around a handful of addresses; IPv6 ones also around the numbers that IPv4 has.
fn network() -> impl Strategy<Value = IpNetwork> {
    prop_oneof![
        (0..4u8, 0..4u8, any::<u8>(), prop_oneof![Just(0u8), 6..=32u8])
            .prop_map(|(b, c, d, length)| { masked(IpAddr::V4(Ipv4Addr::new(10, b, c, d)), length) }),
        (0..4u16, 0..4u16, prop_oneof![Just(0u8), 28..=128u8]).prop_map(|(b, d, length)| {
            masked(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, b, 0, 0, 0, 0, d)), length)
        }),
        (prop_oneof![0..=1u8, 64..=95u8]).prop_map(|length| {
            masked(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a00, 1)), length)
        }),
    ]
}

/// Bits to set behind a prefix, and how much longer than it to be.
fn network_inside() -> impl Strategy<Value = (u128, u8)> {
    (prop_oneof![Just(0u128), Just(u128::MAX), any::<u128>()], 1..=24u8)
}

fn inside(cidr: IpNetwork, (bits, longer): (u128, u8)) -> Option<IpNetwork> {
    match cidr {
        IpNetwork::V4(v4) => {
            let bits = (bits as u32) & !u32::from(v4.mask());
            let address = Ipv4Addr::from(u32::from(v4.network()) | bits);
            (v4.prefix() < 32).then(|| masked(address.into(), (v4.prefix() + longer).min(32)))
        }
        IpNetwork::V6(v6) => {
            let bits = bits & !u128::from(v6.mask());
            let address = Ipv6Addr::from(u128::from(v6.network()) | bits);
            let network =
                (v6.prefix() < 128).then(|| masked(address.into(), (v6.prefix() + longer).min(128)));
            // Parts of the IPv4 numbers are not written in IPv6 form.
            network.filter(|part| !(part.prefix() >= 96 && part.ip().to_canonical().is_ipv4()))
        }
    }
}

fn masked(address: IpAddr, length: u8) -> IpNetwork {
    let around = IpNetwork::new(address, length).unwrap();
    IpNetwork::new(around.network(), length).unwrap()
}

fn port() -> impl Strategy<Value = Port> {
    let range = prop_oneof![
        Just((None, None)),
        port_number().prop_map(|port| (Some(port), None)),
        (port_number(), port_number()).prop_map(|(a, b)| (Some(a.min(b)), Some(a.max(b)))),
    ];
    (protocol(), range).prop_map(|(protocol, (port, end_port))| match protocol {
        Protocol::Icmp => Port { protocol, port: None, end_port: None },
        _ => Port { protocol, port, end_port },
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp])
}

fn port_number() -> impl Strategy<Value = i32> {
    prop_oneof![select(vec![1, 53, 80, 443, 65535]), 1..=65535i32]
}

/// A flow before it is known what its Eggs name.
#[derive(Debug)]
struct RawFlow {
    protocol: u8,
    edge: Index,
    anywhere: Option<IpAddr>,
    port: Index,
    any_port: Option<u16>,
    direction: Direction,
    learned: Vec<String>,
}

fn flow() -> impl Strategy<Value = RawFlow> {
    let protocol = select(vec![6u8, 6, 6, 17, 17, 132, 1, 58, 47, 0]);
    let loopback =
        select(vec!["127.0.0.1", "::1", "::ffff:127.0.0.2", "::ffff:10.0.0.1", "10.0.0.1", "10.0.3.3"]);
    let anywhere = prop_oneof![
        8 => Just(None),
        1 => any::<IpAddr>().prop_map(Some),
        1 => loopback.prop_map(|text| Some(text.parse().unwrap())),
    ];
    let any_port = prop_oneof![3 => Just(None), 1 => any::<u16>().prop_map(Some), 1 => Just(Some(53))];
    let direction = prop_oneof![30 => Just(Direction::Egress), 1 => Just(Direction::Ingress)];
    (protocol, any::<Index>(), anywhere, any::<Index>(), any_port, direction, vec(name(), 0..3)).prop_map(
        |(protocol, edge, anywhere, port, any_port, direction, learned)| RawFlow {
            protocol,
            edge,
            anywhere,
            port,
            any_port,
            direction,
            learned,
        },
    )
}

impl RawFlow {
    fn finish(self, edges: &[IpAddr], ports: &[u16]) -> (Flow, Vec<DomainName>) {
        let address = self.anywhere.unwrap_or_else(|| *self.edge.get(edges));
        let port = self.any_port.unwrap_or_else(|| *self.port.get(ports));
        let learned = self.learned.iter().map(|name| DomainName::parse(name).unwrap()).collect();
        (Flow { protocol: self.protocol, address, port, direction: self.direction }, learned)
    }
}

/// The first and last address of every network and except, and their neighbours.
fn edges(specs: &[PolicySpec]) -> Vec<IpAddr> {
    let destinations = specs.iter().flat_map(|spec| &spec.egress).flat_map(|rule| &rule.to);
    let networks = destinations.flat_map(|to| to.cidr.iter().chain(&to.except));
    let mut edges: Vec<IpAddr> = networks
        .map(|text| text.parse::<IpNetwork>().unwrap())
        .flat_map(|network| {
            let (first, last) = (network.network(), network.broadcast());
            [first, last, step(first, -1), step(last, 1)]
        })
        .collect();
    edges.push("192.0.2.1".parse().unwrap());
    edges
}

fn step(address: IpAddr, by: i8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from(v4.to_bits().wrapping_add_signed(by.into())).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(v6.to_bits().wrapping_add_signed(by.into())).into(),
    }
}

/// Every port named, and its neighbours.
fn ports_of(specs: &[PolicySpec]) -> Vec<u16> {
    let ports = specs.iter().flat_map(|spec| &spec.egress).flat_map(|rule| &rule.ports);
    let mut ports: Vec<u16> = ports
        .flat_map(|port| [port.port, port.end_port])
        .flatten()
        .flat_map(|port| [port - 1, port, port + 1])
        .map(|port| port as u16)
        .collect();
    ports.push(443);
    ports
}
