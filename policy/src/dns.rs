//! What Eggs say about DNS itself, and what a pod's resolver is told.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use l7egg_crds::{Dns, Mode, RefusalCode};

use crate::{DomainName, Network, Problem, Source, to_number};

/// Longest time that can be set: 30 days.
pub const MAX_TTL_SETTING: Duration = Duration::from_secs(30 * 86_400);

/// Entries of `dns.servers`.
const MAX_SERVERS: usize = 64;

/// A pod's `resolv.conf` (`man 5 resolv.conf`), as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResolvConf {
    /// `nameserver`: only their answers are believed.
    pub servers: BTreeSet<IpAddr>,
    /// `search`: a program that asks for a name may ask for it with one of these behind it.
    pub search: BTreeSet<DomainName>,
    /// Those of its search domains that the pod's own `dnsConfig` names.
    pub own_search: BTreeSet<DomainName>,
}

impl ResolvConf {
    /// One with these servers and no search domains.
    pub fn of_servers(servers: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { servers: servers.into_iter().collect(), ..Self::default() }
    }

    /// What counts of it for these Eggs: the servers that are in the `dns.servers` of every Egg that has such a list, and all search
    /// domains, but the pod's own only where there is no list: who wrote the pod is not trusted, then. Eggs in mode Audit count only
    /// where no other does.
    #[must_use]
    pub fn believed(&self, sources: &[Source<'_>]) -> Self {
        let lists: Vec<&[String]> =
            decisive(sources).map(|dns| &*dns.servers).filter(|list| !list.is_empty()).collect();
        let is_believed = |server: &IpAddr| lists.iter().all(|list| is_in(list, *server));
        let own = self.own_search.iter().filter(|_| lists.is_empty());
        Self {
            servers: self.servers.iter().copied().filter(is_believed).collect(),
            search: self.search.iter().chain(own).cloned().collect(),
            own_search: BTreeSet::new(),
        }
    }

    /// What of it the policy of these Eggs is made of: [`Self::believed`], and the search domains only where names are refused. Else
    /// pods of all namespaces share one policy.
    #[must_use]
    pub fn that_counts(&self, sources: &[Source<'_>]) -> Self {
        let believed = self.believed(sources);
        match DnsSettings::of(sources).refuse_unmatched {
            true => believed,
            false => Self { search: BTreeSet::new(), ..believed },
        }
    }
}

/// Whether one of the networks holds a server.
fn is_in(networks: &[String], server: IpAddr) -> bool {
    let server = Network::around(to_number(server), 128);
    // `::/0` holds no IPv4, whose numbers are among those of IPv6.
    let holds = |network: Network| network.is_ipv4() == server.is_ipv4() && network.contains(server);
    networks.iter().filter_map(|text| Network::parse(text).ok()).any(holds)
}

/// What is written about DNS by the Eggs that decide.
fn decisive<'a>(sources: &'a [Source<'a>]) -> impl Iterator<Item = &'a Dns> + Clone {
    let any_enforced = sources.iter().any(is_enforced);
    let decisive = sources.iter().filter(move |source| !any_enforced || is_enforced(source));
    decisive.filter_map(|source| source.spec.dns.as_ref())
}

fn is_enforced(source: &Source<'_>) -> bool {
    source.spec.mode == Mode::Enforce
}

/// The DNS settings of all Eggs of a pod together. `None`: the agent's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// Queries that no Allow rule matches do not leave.
    pub refuse_unmatched: bool,
    /// What they are answered with.
    pub refusal_code: RefusalCode,
    /// An answer is believed at least so long.
    pub min_ttl: Option<Duration>,
    /// An answer is believed at most so long.
    pub max_ttl: Option<Duration>,
    /// And so long after that.
    pub ttl_grace: Option<Duration>,
}

impl DnsSettings {
    /// One that refuses is enough; the longest `minTTL` and `ttlGrace` hold, and the shortest `maxTTL`. Eggs in mode Audit count only where no other does, and refuse nothing.
    pub fn of(sources: &[Source<'_>]) -> Self {
        let any_enforced = sources.iter().any(is_enforced);
        let written = || decisive(sources);
        let times =
            |time: fn(&Dns) -> Option<l7egg_crds::Duration>| written().filter_map(time).map(Duration::from);
        Self {
            refuse_unmatched: any_enforced && written().any(|dns| dns.refuse_unmatched),
            refusal_code: written().filter_map(|dns| dns.refusal_code).max().unwrap_or_default(),
            min_ttl: times(|dns| dns.min_ttl).max(),
            max_ttl: times(|dns| dns.max_ttl).min(),
            ttl_grace: times(|dns| dns.ttl_grace).max(),
        }
    }
}

/// Adds what is wrong with an Egg's DNS settings.
pub(crate) fn check(dns: &Dns, problems: &mut Vec<Problem>) {
    if dns.servers.len() > MAX_SERVERS {
        problems.push(Problem::invalid(
            "spec.dns.servers",
            format!(
                "{} networks are too many: {MAX_SERVERS} are the most, so write larger ones",
                dns.servers.len()
            ),
        ));
    }
    for (index, text) in dns.servers.iter().enumerate().take(MAX_SERVERS) {
        if let Err(error) = Network::parse(text) {
            problems.push(Problem::invalid(format!("spec.dns.servers[{index}]"), error));
        }
    }
    let mut times = [
        ("minTTL", dns.min_ttl, Duration::ZERO),
        ("maxTTL", dns.max_ttl, Duration::ZERO),
        ("ttlGrace", dns.ttl_grace, Duration::ZERO),
    ];
    for (field, written, time) in &mut times {
        let Some(written) = written else { continue };
        *time = Duration::from(*written);
        if written.is_negative() || *time > MAX_TTL_SETTING {
            problems.push(Problem::invalid(
                format!("spec.dns.{field}"),
                format!("{written:?} is not between 0s and 720h: write a time such as 30s, 5m or 24h"),
            ));
        }
    }
    if let [(_, Some(_), min), (_, Some(_), max), _] = times
        && min > max
    {
        problems.push(Problem::invalid(
            "spec.dns.maxTTL",
            "maxTTL is shorter than minTTL: an answer cannot be believed longer and shorter; leave one out",
        ));
    }
}
