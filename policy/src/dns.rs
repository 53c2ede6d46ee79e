//! What Eggs say about DNS itself, and what a pod's resolver is told.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use l7egg_crds::{Dns, Mode, RefusalCode};

use crate::{DomainName, Problem, Source};

/// Longest time that can be set: 30 days.
pub const MAX_TTL_SETTING: Duration = Duration::from_secs(30 * 86_400);

/// A pod's `resolv.conf` (`man 5 resolv.conf`), as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResolvConf {
    /// `nameserver`: only their answers are believed.
    pub servers: BTreeSet<IpAddr>,
    /// `search`: a program that asks for a name may ask for it with one of these behind it.
    pub search: BTreeSet<DomainName>,
}

impl ResolvConf {
    /// One with these servers and no search domains.
    pub fn of_servers(servers: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { servers: servers.into_iter().collect(), search: BTreeSet::new() }
    }
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
        let is_enforced = |source: &Source<'_>| source.spec.mode == Mode::Enforce;
        let any_enforced = sources.iter().any(is_enforced);
        let decisive = || sources.iter().filter(move |source| !any_enforced || is_enforced(source));
        let written = || decisive().filter_map(|source| source.spec.dns.as_ref());
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
