//! What a node keeps reachable whatever the Eggs for it say, so that no Egg locks the node out of its cluster.

use ipnetwork::IpNetwork;
use l7egg_crds::{Action, Destination, EgressRule, PolicySpec, Port, Protocol};

/// Destinations that stay reachable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guard(pub Vec<Guarded>);

/// Some of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Guarded {
    /// What they are, for people: `API server`.
    pub what: &'static str,
    /// Where they are.
    pub networks: Vec<IpNetwork>,
    /// The ports; none is every port of every protocol.
    pub ports: Vec<Port>,
}

impl Guard {
    /// Most entries of a guard.
    pub const MAX_KINDS: usize = 3;

    /// The policy with all guarded destinations allowed, and each Deny rule narrowed to what is not guarded. For TCP, UDP,
    /// SCTP and ICMP nothing else changes; other protocols to addresses of which some ports are guarded are denied only
    /// as long as no rule allows them. Names in Deny rules are left as they are: [`crate::validate_cluster`] refuses them.
    #[must_use]
    pub fn apply(&self, spec: &PolicySpec) -> PolicySpec {
        let mut egress = spec.egress.clone();
        let mut more = Vec::new();
        for rule in egress.iter_mut().filter(|rule| rule.action == Action::Deny) {
            let narrowed = self.0.iter().fold(vec![rule.clone()], |rules, guarded| {
                rules.into_iter().flat_map(|rule| guarded.spare(rule)).collect()
            });
            let mut narrowed = narrowed.into_iter();
            // Every rule keeps its place, by which people are told of it. Of one that nothing is left of, that is a
            // rule that is there anyway.
            if let Some(first) = narrowed.next().or_else(|| self.0.first().map(Guarded::allow)) {
                *rule = first;
            }
            more.extend(narrowed);
        }
        egress.extend(more);
        egress.extend(self.0.iter().map(Guarded::allow));
        PolicySpec { egress, ..spec.clone() }
    }

    /// What is guarded, for people: `API server 10.0.0.1 (TCP 6443)`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().map(Guarded::line).collect()
    }
}

impl Guarded {
    fn allow(&self) -> EgressRule {
        let to =
            |network: &IpNetwork| Destination { cidr: Some(network.to_string()), ..Destination::default() };
        EgressRule {
            action: Action::Allow,
            to: self.networks.iter().map(to).collect(),
            ports: self.ports.clone(),
        }
    }

    /// What is left of a Deny rule: other destinations on all its ports, and these on its other ports.
    fn spare(&self, rule: EgressRule) -> Vec<EgressRule> {
        let (mut others, mut these) = (rule.to, Vec::new());
        for network in &self.networks {
            let split = others.into_iter().map(|to| split(to, *network));
            let (outside, inside): (Vec<_>, Vec<_>) = split.unzip();
            others = outside.into_iter().flatten().collect();
            these.extend(inside.into_iter().flatten());
        }
        let these = without(&rule.ports, &self.ports).map(|ports| (these, ports));
        let rest = std::iter::once((others, rule.ports)).chain(these);
        rest.filter(|(to, _)| !to.is_empty())
            .map(|(to, ports)| EgressRule { action: Action::Deny, to, ports })
            .collect()
    }

    fn line(&self) -> String {
        let networks: Vec<String> = self.networks.iter().map(short).collect();
        let ports: Vec<String> = self.ports.iter().map(port_text).collect();
        match ports.as_slice() {
            [] => format!("{} {}", self.what, networks.join(", ")),
            ports => format!("{} {} ({})", self.what, networks.join(", "), ports.join(", ")),
        }
    }
}

/// The parts of a destination outside of a network, and inside.
fn split(to: Destination, network: IpNetwork) -> (Option<Destination>, Option<Destination>) {
    let parse = |text: &String| text.parse::<IpNetwork>().ok();
    let Some(cidr) = to.cidr.as_ref().and_then(parse) else { return (Some(to), None) };
    let common = match (holds(network, cidr), holds(cidr, network)) {
        (true, _) => cidr,
        (_, true) => network,
        _ => return (Some(to), None),
    };
    let excepts: Vec<IpNetwork> = to.except.iter().filter_map(parse).collect();
    if excepts.iter().any(|except| holds(*except, common)) {
        return (Some(to), None);
    }
    let (within, beside): (Vec<_>, Vec<_>) = excepts.into_iter().partition(|except| holds(common, *except));
    let part = |cidr: IpNetwork, except: Vec<IpNetwork>| Destination {
        cidr: Some(cidr.to_string()),
        except: except.iter().map(ToString::to_string).collect(),
        ..Destination::default()
    };
    let outside = (common != cidr).then(|| part(cidr, beside.into_iter().chain([common]).collect()));
    (outside, Some(part(common, within)))
}

/// Whether a network holds all of another.
fn holds(network: IpNetwork, other: IpNetwork) -> bool {
    network.is_ipv4() == other.is_ipv4()
        && network.prefix() <= other.prefix()
        && network.contains(other.network())
}

/// Ports without others, as a rule has them; `None` if none are left.
fn without(ports: &[Port], others: &[Port]) -> Option<Vec<Port>> {
    if others.is_empty() {
        return None;
    }
    let every = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp];
    let every = every.map(|protocol| Port { protocol, port: None, end_port: None });
    let ports = if ports.is_empty() { &every } else { ports };
    let left: Vec<Port> = ports
        .iter()
        .flat_map(|port| {
            let others = others.iter().filter(|other| other.protocol == port.protocol).map(range);
            let ranges = others.fold(vec![range(port)], |ranges, other| {
                ranges.into_iter().flat_map(|range| cut(range, other)).collect()
            });
            ranges.into_iter().map(|(first, last)| match (first, last) {
                WHOLE => Port { protocol: port.protocol, port: None, end_port: None },
                _ => Port { protocol: port.protocol, port: Some(first), end_port: Some(last) },
            })
        })
        .collect();
    (!left.is_empty()).then_some(left)
}

/// All ports of a protocol. No packet is sent to port 0.
const WHOLE: (i32, i32) = (1, 65535);

fn range(port: &Port) -> (i32, i32) {
    port.port.map_or(WHOLE, |first| (first, port.end_port.unwrap_or(first)))
}

fn cut((first, last): (i32, i32), (from, to): (i32, i32)) -> impl Iterator<Item = (i32, i32)> {
    let parts =
        if to < first || from > last { [(first, last), (1, 0)] } else { [(first, from - 1), (to + 1, last)] };
    parts.into_iter().filter(|(first, last)| first <= last)
}

/// A single address without its length.
fn short(network: &IpNetwork) -> String {
    let full = if network.is_ipv4() { 32 } else { 128 };
    if network.prefix() == full { network.ip().to_string() } else { network.to_string() }
}

fn port_text(port: &Port) -> String {
    let protocol = format!("{:?}", port.protocol).to_uppercase();
    match (port.port, port.end_port.filter(|end| Some(*end) != port.port)) {
        (None, _) => protocol,
        (Some(port), None) => format!("{protocol} {port}"),
        (Some(port), Some(end)) => format!("{protocol} {port}-{end}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use l7egg_ebpf_common::abi::Direction;

    use super::*;
    use crate::{Flow, ResolvConf, Source, Verdict, compile, judge, lookup_compiled};

    fn guard() -> Guard {
        let tcp = |port| Port { protocol: Protocol::Tcp, port: Some(port), end_port: None };
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Guard(vec![
            Guarded {
                what: "API server",
                networks: networks(&["10.0.0.1/32", "10.88.1.5/32", "fd00::1/128"]),
                ports: vec![tcp(443), tcp(6443)],
            },
            Guarded { what: "own pods", networks: networks(&["10.88.1.0/24"]), ports: vec![] },
            Guarded {
                what: "DHCP",
                networks: networks(&["0.0.0.0/0"]),
                ports: vec![Port { protocol: Protocol::Udp, port: Some(67), end_port: None }],
            },
        ])
    }

    fn is_guarded(flow: &Flow) -> bool {
        let api = ["10.0.0.1", "10.88.1.5", "fd00::1"]
            .iter()
            .any(|it| flow.address == it.parse::<std::net::IpAddr>().unwrap());
        (api && flow.protocol == 6 && [443, 6443].contains(&flow.port))
            || "10.88.1.0/24".parse::<IpNetwork>().unwrap().contains(flow.address)
            || (flow.address.is_ipv4() && flow.protocol == 17 && flow.port == 67)
    }

    fn flows() -> impl Iterator<Item = Flow> {
        let addresses = [
            "10.0.0.1",
            "10.0.0.2",
            "10.88.1.5",
            "10.88.1.6",
            "10.88.2.1",
            "192.0.2.1",
            "fd00::1",
            "fd00::2",
        ];
        let ports =
            [(6, 443), (6, 444), (6, 442), (6, 6443), (6, 80), (17, 67), (17, 443), (1, 0), (132, 443)];
        addresses.into_iter().flat_map(move |address| {
            ports.map(|(protocol, port)| Flow {
                protocol,
                address: address.parse().unwrap(),
                port,
                direction: Direction::Egress,
            })
        })
    }

    const POLICIES: [&str; 9] = [
        "{}",
        "{egress: [{action: Deny, to: [{cidr: 0.0.0.0/0}, {cidr: '::/0'}]}]}",
        "{egress: [{to: [{cidr: 0.0.0.0/0}, {cidr: '::/0'}]}, {action: Deny, to: [{cidr: 10.0.0.1/32}, {cidr: 10.88.0.0/16}]}]}",
        "{egress: [{to: [{cidr: 0.0.0.0/0}]}, {action: Deny, to: [{cidr: 10.0.0.0/8, except: [10.0.0.0/30]}], ports: [{port: 443}]}]}",
        "{egress: [{to: [{cidr: 0.0.0.0/0}]}, {action: Deny, to: [{cidr: 10.0.0.0/8, except: [10.88.1.0/28, 10.0.0.2/32]}], ports: [{port: 400, endPort: 500}, {protocol: UDP}]}]}",
        "{egress: [{to: [{cidr: 0.0.0.0/0}]}, {action: Deny, to: [{cidr: 10.88.1.4/30}, {cidr: 10.0.0.0/30}], ports: [{protocol: ICMP}, {port: 6443}]}]}",
        "{egress: [{to: [{cidr: '::/0'}], ports: [{port: 443}]}, {action: Deny, to: [{cidr: 'fd00::/64'}]}]}",
        "{egress: [{action: Deny, to: [{cidr: 10.0.0.1/32}], ports: [{port: 443}]}, {to: [{cidr: 10.0.0.0/8}]}]}",
        "{mode: Enforce, egress: [{to: [{cidr: 192.0.2.0/24}], ports: [{port: 80}]}, {action: Deny, to: [{cidr: 192.0.2.0/24}], ports: [{protocol: SCTP}]}]}",
    ];

    #[test]
    fn what_is_guarded_passes_and_the_rest_is_as_it_was() {
        for yaml in POLICIES {
            let spec: PolicySpec = serde_yaml::from_str(yaml).unwrap();
            let guarded = guard().apply(&spec);
            assert_eq!(crate::validate(&guarded), [], "{yaml}");
            let verdict = |spec: &PolicySpec, flow: Flow| {
                let source = Source { name: "ClusterEgg a".into(), spec };
                let said = judge(std::slice::from_ref(&source), &BTreeSet::new(), &[], flow).verdict;
                let compiled = compile(&[source], &ResolvConf::default()).unwrap();
                assert_eq!(lookup_compiled(&compiled, &[], flow), said, "{yaml} {flow:?}");
                said
            };
            for flow in flows() {
                let expected = if is_guarded(&flow) { Verdict::Allow } else { verdict(&spec, flow) };
                assert_eq!(verdict(&guarded, flow), expected, "{yaml} {flow:?}");
            }
        }
    }

    #[test]
    fn a_guard_twice_is_a_guard() {
        for yaml in POLICIES {
            let once = guard().apply(&serde_yaml::from_str(yaml).unwrap());
            let deny = |spec: &PolicySpec| {
                spec.egress.iter().filter(|rule| rule.action == Action::Deny).cloned().collect::<Vec<_>>()
            };
            assert_eq!(deny(&guard().apply(&once)), deny(&once), "{yaml}");
        }
    }

    #[test]
    fn says_what_it_keeps() {
        assert_eq!(
            guard().lines(),
            [
                "API server 10.0.0.1, 10.88.1.5, fd00::1 (TCP 443, TCP 6443)",
                "own pods 10.88.1.0/24",
                "DHCP 0.0.0.0/0 (UDP 67)"
            ]
        );
    }
}
