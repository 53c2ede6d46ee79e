//! What Eggs mean, said once and straight from the objects. Nothing here knows of masks, tries or hashes:
//! what the compiler, the maps and the kernel programs do is tested against it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use ipnetwork::IpNetwork;
use l7egg_crds::{Action, EgressRule, Mode, PolicySpec, Port};
use l7egg_ebpf_common::abi::Direction;

use crate::{
    DomainName, Flow, NamePattern, ReadSpecs, ResolvConf, Sender, Source, Verdict, is_divided, of_container,
    protocol_number,
    reading::{ReadDestination, ReadRule},
};

/// A verdict and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub why: Why,
}

/// Why a flow passes or not. The reasons are asked in this order, and the first that holds decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No Egg selects the pod: it is untouched.
    NotSelected,
    /// All Eggs that select the pod are in mode Audit.
    NotEnforced,
    /// The address is the pod's own loopback.
    Loopback,
    /// The other side opened the connection.
    Reply,
    /// DNS to the pod's own DNS server.
    OwnResolver,
    /// Some Egg is for certain containers of the pod, and the sender is none of its containers, as far as is known.
    Nobody,
    /// A rule decides: a Deny rule if one matches, else an Allow rule.
    Rule(RuleReference, Match),
    /// No rule matches. The rules named here allow the destination, on other ports.
    NoRule(Vec<RuleReference>),
}

/// A rule of an Egg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleReference {
    /// Name of the source: `Egg shop/checkout`.
    pub source_name: String,
    /// Index in its `egress`.
    pub rule: usize,
}

/// By what a destination belongs to a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The pod learned the address by this name, and the pattern matches it.
    Name(DomainName, NamePattern),
    /// The network holds the address.
    Cidr(IpNetwork),
}

/// Judges a flow of a pod that these Eggs select, whose DNS servers are `resolvers`, and that learned the
/// flow's address by the names in `learned`. Deny beats Allow; otherwise what any rule of any Egg allows is
/// allowed; a rule's ports count for its own destinations only.
///
/// Only Eggs in mode Enforce deny or open. What they let pass, or what passes because there are none, and what
/// all Eggs together would deny, passes as [`Verdict::Audit`], with the reason why it would be denied.
///
/// What [`crate::validate()`] refuses in an Egg matches nothing here.
pub fn judge(
    sources: &[Source<'_>],
    resolvers: &BTreeSet<IpAddr>,
    learned: &[DomainName],
    flow: Flow,
) -> Judgement {
    judge_all(&ReadSpecs::default(), sources, resolvers, learned, flow)
}

fn judge_all<'a>(
    specs: &ReadSpecs<'a>,
    sources: &[Source<'a>],
    resolvers: &BTreeSet<IpAddr>,
    learned: &[DomainName],
    flow: Flow,
) -> Judgement {
    let flow = flow.normalised();
    let allow = |why| Judgement { verdict: Verdict::Allow, why };
    if sources.is_empty() {
        return allow(Why::NotSelected);
    }
    if flow.address.is_loopback() {
        return allow(Why::Loopback);
    }
    if flow.direction == Direction::Ingress {
        return allow(Why::Reply);
    }
    if flow.is_dns()
        && resolvers.iter().any(|resolver| resolver.to_canonical() == flow.address)
        && is_believed(sources, flow.address)
    {
        return allow(Why::OwnResolver);
    }
    let read: Vec<Read<'_>> = sources.iter().map(|source| (source, specs.rules(source.spec))).collect();
    let all = decide(read.iter(), learned, flow);
    let enforced = |(source, _): &&Read<'_>| source.spec.mode == Mode::Enforce;
    let now = if read.iter().any(|read| enforced(&read)) {
        decide(read.iter().filter(enforced), learned, flow)
    } else {
        allow(Why::NotEnforced)
    };
    match (now.verdict, all.verdict) {
        (Verdict::Deny, _) => now,
        (_, Verdict::Deny) => Judgement { verdict: Verdict::Audit, why: all.why },
        _ => all,
    }
}

/// The same for one sender of a pod that may be divided: for a container, only the Eggs that are for it count. What comes from
/// no container that is known may only reply, and ask the pod's DNS servers, unless no Egg is enforced. For many flows `specs` is
/// the same: each spec is read once then.
pub fn judge_sender<'a>(
    specs: &ReadSpecs<'a>,
    sources: &[Source<'a>],
    sender: Sender<'_>,
    resolvers: &BTreeSet<IpAddr>,
    learned: &[DomainName],
    flow: Flow,
) -> Judgement {
    match sender {
        _ if !is_divided(sources) => judge_all(specs, sources, resolvers, learned, flow),
        Sender::Container(name) => judge_all(specs, &of_container(sources, name), resolvers, learned, flow),
        Sender::Nobody => {
            let closed = PolicySpec {
                mode: sources.iter().map(|source| source.spec.mode).min().unwrap_or_default(),
                ..PolicySpec::default()
            };
            let source = Source { name: String::new(), spec: &closed };
            let believed = resolvers.iter().copied().filter(|resolver| is_believed(sources, *resolver));
            let judgement = judge(&[source], &believed.collect(), learned, flow);
            match judgement.why {
                Why::NoRule(_) => Judgement { why: Why::Nobody, ..judgement },
                _ => judgement,
            }
        }
    }
}

/// Whether every Egg that has a list of DNS servers has this one in it.
fn is_believed(sources: &[Source<'_>], resolver: IpAddr) -> bool {
    server_lists(sources).all(|list| list.iter().any(|network| is_in(network, resolver)))
}

/// The search domains that count: those that the pod itself names only if no Egg has a list of DNS servers.
fn searched<'a>(
    sources: &[Source<'_>],
    resolv_conf: &'a ResolvConf,
) -> impl Iterator<Item = &'a DomainName> + use<'a> {
    let own_count = server_lists(sources).next().is_none();
    resolv_conf.search.iter().chain(resolv_conf.own_search.iter().filter(move |_| own_count))
}

/// The lists of DNS servers. Eggs in mode Audit count only where no other does.
fn server_lists<'a>(sources: &'a [Source<'a>]) -> impl Iterator<Item = &'a [String]> {
    let strictest = sources.iter().map(|source| source.spec.mode).min();
    let deciding = sources.iter().filter(move |source| Some(source.spec.mode) == strictest);
    let lists = deciding.filter_map(|source| Some(&*source.spec.dns.as_ref()?.servers));
    lists.filter(|list| !list.is_empty())
}

fn is_in(network: &str, address: IpAddr) -> bool {
    network.parse::<IpNetwork>().is_ok_and(|network| network.contains(address.to_canonical()))
}

/// An Egg with its rules.
type Read<'a> = (&'a Source<'a>, Rc<[ReadRule<'a>]>);

/// What the rules of these together say.
fn decide<'a>(read: impl Iterator<Item = &'a Read<'a>>, learned: &[DomainName], flow: Flow) -> Judgement {
    let mut allowed = None;
    let mut other_ports = Vec::new();
    let rules = read.flat_map(|(source, rules)| rules.iter().enumerate().map(move |it| (source, it)));
    for (source, (rule, read)) in rules {
        let Some(by) = read.to.iter().find_map(|to| to.matches(learned, flow.address)) else {
            continue;
        };
        let reference = || RuleReference { source_name: source.name.clone(), rule };
        match (read.written.action, ports_match(read.written, flow)) {
            (Action::Deny, true) => {
                return Judgement { verdict: Verdict::Deny, why: Why::Rule(reference(), by) };
            }
            (Action::Allow, true) if allowed.is_none() => allowed = Some(Why::Rule(reference(), by)),
            (Action::Allow, false) => other_ports.push(reference()),
            _ => {}
        }
    }
    match allowed {
        Some(why) => Judgement { verdict: Verdict::Allow, why },
        None => Judgement { verdict: Verdict::Deny, why: Why::NoRule(other_ports) },
    }
}

/// Whether a pod that these Eggs select may ask its own DNS servers for a name, or is refused there. Refused is what
/// no Allow rule matches, by itself or without a search domain behind it or with another one there, if some Egg in mode Enforce
/// says `refuseUnmatched`. Names that Eggs in mode Audit allow may be asked: what they would allow has to be learned. `name` is `None` for what is not the query for one host name.
pub fn judge_query(sources: &[Source<'_>], resolv_conf: &ResolvConf, name: Option<&DomainName>) -> Verdict {
    let mut enforced = sources.iter().filter(|source| source.spec.mode == Mode::Enforce);
    if !enforced.any(|source| source.spec.dns.as_ref().is_some_and(|dns| dns.refuse_unmatched)) {
        return Verdict::Allow;
    }
    let domains: Vec<&DomainName> = searched(sources, resolv_conf).collect();
    let before: Vec<DomainName> = domains.iter().filter_map(|domain| name?.before(domain)).collect();
    // A resolver that is refused a name with one search domain behind it does not go on to the next.
    let others = before.iter().flat_map(|name| domains.iter().filter_map(|domain| name.with(domain)));
    let asked: Vec<DomainName> =
        name.cloned().into_iter().chain(others).chain(before.iter().cloned()).collect();
    let rules = sources.iter().flat_map(|source| &source.spec.egress);
    let mut allowing = rules.filter(|rule| rule.action == Action::Allow).flat_map(|rule| &rule.to);
    let allowed = allowing.any(|to| ReadDestination::new(to).matches_name(&asked).is_some());
    if allowed { Verdict::Allow } else { Verdict::Deny }
}

fn ports_match(rule: &EgressRule, flow: Flow) -> bool {
    rule.ports.is_empty() || rule.ports.iter().any(|port| port_matches(port, flow))
}

fn port_matches(port: &Port, flow: Flow) -> bool {
    protocol_number(port.protocol) == flow.protocol
        && port
            .port
            .is_none_or(|first| (first..=port.end_port.unwrap_or(first)).contains(&i32::from(flow.port)))
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Allow => "allowed",
            Verdict::Audit => "allowed, and would be denied if all Eggs were enforced",
            Verdict::Deny => "denied",
        };
        write!(f, "{verdict}: {}", self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NotSelected => f.write_str("no Egg selects the pod"),
            Why::NotEnforced => f.write_str("all Eggs that select the pod are in mode Audit"),
            Why::Loopback => f.write_str("loopback is always free"),
            Why::Reply => f.write_str("the other side opened the connection"),
            Why::Nobody => f.write_str(
                "some Egg is for certain containers of the pod, and this comes from none of its containers that is known",
            ),
            Why::OwnResolver => f.write_str("DNS to the pod's own DNS server is always free"),
            Why::Rule(rule, by) => write!(f, "{rule}, which has {by}"),
            Why::NoRule(others) => {
                f.write_str("no rule allows it")?;
                for rule in others {
                    write!(f, "; {rule} allows the destination, on other ports")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for RuleReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spec.egress[{}]", self.source_name, self.rule)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Name(name, pattern) => write!(f, "{pattern}, and the address was learned by {name}"),
            Match::Cidr(cidr) => write!(f, "{cidr}"),
        }
    }
}
