//! What a case means, straight from its Eggs: `l7egg_policy`'s oracle, and what it is told about the names of addresses.

use std::net::IpAddr;
use std::time::Duration;

use l7egg_crds::{Mode, PolicySpec};
use l7egg_ebpf_common::abi::{DNS_PORT, protocol};
use l7egg_policy::{
    CompiledPolicy, DomainName, Judgement, NamePattern, ReadSpecs, ResolvConf, Sender, Source, Verdict, Why,
    compile, is_divided, judge_query, judge_sender, of_container,
};

use super::case::{Answer, Case, Packet, Query};
use crate::harness::resolv_conf;

/// What the node believes an answer at least and at most: longer than any case takes.
pub const NODE_TTL: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3600)];

/// The containers of a pod whose Eggs are for some of them. The first is whose packets and calls are judged.
pub const CONTAINERS: [&str; 2] = ["app", "other"];

/// A case, and what its pod has learned.
pub struct Meaning<'a> {
    all: Vec<Source<'a>>,
    /// Those that count for who is judged.
    sources: Vec<Source<'a>>,
    conf: ResolvConf,
    /// The addresses of the answers that are believed to the end, and the name that each is learned by.
    known: Vec<(&'a [IpAddr], DomainName)>,
}

impl<'a> Meaning<'a> {
    /// Of a case.
    pub fn new(case: &'a Case) -> Self {
        let named = case.eggs.iter().enumerate();
        let all: Vec<Source<'_>> =
            named.map(|(index, spec)| Source { name: format!("Egg test/{index}"), spec }).collect();
        let sources = if is_divided(&all) { of_container(&all, CONTAINERS[0]) } else { all.clone() };
        let own_search = case.own_search.iter().map(|domain| parse(domain)).collect();
        let conf = ResolvConf { own_search, ..resolv_conf() };
        let mut meaning = Self { all, sources, conf, known: Vec::new() };
        meaning.known = case.history.iter().filter_map(|answer| meaning.learn(answer)).collect();
        meaning
    }

    /// What the programs are given for who is judged; nothing if no Egg is for it.
    pub fn policy(&self) -> Option<CompiledPolicy> {
        self.compile(&self.sources)
    }

    /// Where the pod is divided, what they are given for each of [`CONTAINERS`].
    pub fn division(&self) -> Option<[Option<CompiledPolicy>; 2]> {
        let of = |container| self.compile(&of_container(&self.all, container));
        is_divided(&self.all).then(|| CONTAINERS.map(of))
    }

    fn compile(&self, sources: &[Source<'_>]) -> Option<CompiledPolicy> {
        let compiled = || compile(sources, &self.conf).expect("generated policies are valid");
        (!sources.is_empty()).then(compiled)
    }

    /// What is to become of a query.
    pub fn query(&self, query: &Query) -> Verdict {
        let to = Packet { protocol: protocol::UDP, address: query.resolver, port: DNS_PORT };
        let judgement = self.flow(to);
        match judgement.why {
            Why::OwnResolver => judge_query(&self.sources, &self.conf, Some(&parse(&query.name))),
            _ => judgement.verdict,
        }
    }

    /// What is to become of a flow; of a query too, as far as its destination decides.
    pub fn flow(&self, packet: Packet) -> Judgement {
        let known = self.known.iter().filter(|(addresses, _)| addresses.contains(&packet.address));
        let learned: Vec<DomainName> = known.map(|(_, name)| name.clone()).collect();
        let sender = Sender::Container(CONTAINERS[0]);
        judge_sender(&ReadSpecs::default(), &self.all, sender, &self.conf.servers, &learned, packet.flow())
    }

    /// The same of its first packet, which holds no query.
    pub fn packet(&self, packet: Packet) -> Judgement {
        let mut meant = self.flow(packet);
        if meant.why == Why::OwnResolver && packet.protocol == protocol::UDP {
            meant.verdict = judge_query(&self.sources, &self.conf, None);
        }
        meant
    }

    /// What an answer teaches for longer than a moment: its addresses, by the name that was asked for if a rule has it, else by
    /// the first alias that a rule has.
    fn learn(&self, answer: &'a Answer) -> Option<(&'a [IpAddr], DomainName)> {
        let to = Packet { protocol: protocol::UDP, address: answer.query.resolver, port: DNS_PORT };
        let is_believed =
            self.flow(to).why == Why::OwnResolver && self.query(&answer.query) == Verdict::Allow;
        let mut names = std::iter::once(&answer.query.name).chain(&answer.aliases).map(|text| parse(text));
        let name = names.find(|name| self.is_in_a_rule(name))?;
        (is_believed && self.lasts(answer.ttl)).then_some((&answer.addresses, name))
    }

    fn is_in_a_rule(&self, name: &DomainName) -> bool {
        let rules = self.sources.iter().flat_map(|source| &source.spec.egress);
        rules.flat_map(|rule| &rule.to).any(|to| {
            let names = to.domain_names.iter().filter_map(|text| NamePattern::parse(text).ok());
            let suffixes = to.domain_suffixes.iter().filter_map(|text| NamePattern::parse_suffix(text).ok());
            let regexes = to.domain_regex.iter().filter_map(|text| NamePattern::parse_regex(text).ok());
            names.chain(suffixes).chain(regexes).any(|pattern| pattern.matches(name))
        })
    }

    /// Whether an answer with this TTL is believed until the end of the case; else it is not even until the next packet. Of the
    /// Eggs that are enforced, or of all where none is, the longest `minTTL` and `ttlGrace` and the shortest `maxTTL` hold.
    fn lasts(&self, ttl: u32) -> bool {
        self.belief(ttl) != Duration::ZERO
    }

    /// Whether an answer is believed for a second only: where a case takes longer it says nothing.
    pub fn is_short(&self, answer: &Answer) -> bool {
        let belief = self.belief(answer.ttl);
        !belief.is_zero() && belief < Duration::from_secs(60)
    }

    fn belief(&self, ttl: u32) -> Duration {
        let specs = || self.sources.iter().map(|source| source.spec);
        let is_enforced = |egg: &PolicySpec| egg.mode == Mode::Enforce;
        let any_enforced = specs().any(is_enforced);
        let deciding = specs().filter(|egg| !any_enforced || is_enforced(egg));
        let written: Vec<[Option<Duration>; 3]> = deciding
            .filter_map(|egg| egg.dns.as_ref())
            .map(|dns| [dns.min_ttl, dns.max_ttl, dns.ttl_grace].map(|time| time.map(Duration::from)))
            .collect();
        let least = written.iter().filter_map(|times| times[0]).max().unwrap_or(NODE_TTL[0]);
        let most = written.iter().filter_map(|times| times[1]).min().unwrap_or(NODE_TTL[1]);
        let grace = written.iter().filter_map(|times| times[2]).max().unwrap_or_default();
        // No TTL is shorter than a second.
        Duration::from_secs(ttl.max(1).into()).max(least).min(most) + grace
    }
}

fn parse(name: &str) -> DomainName {
    DomainName::parse(name).expect("a valid name")
}
