//! What becomes of a connection under a policy.

use std::collections::BTreeSet;
use std::net::IpAddr;

use l7egg_ebpf_common::abi::{Address, Connection, DNS_PORT, Direction, protocol};
use l7egg_policy::{CompiledPolicy, DomainName, Flow, Verdict, lookup_compiled};

use super::sock_diag::{Found, states};

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Keep,
    /// Nothing, and the programs have to be told that it came in: they do not remember it.
    Accepted,
    /// It is not allowed: it ends. If the programs do not remember it, they have to be told of it first, or its
    /// last segment would be dropped.
    Reset {
        /// The programs remember it.
        is_known: bool,
    },
}

/// What a connection is looked at with.
pub struct View<'a> {
    /// The policy in force.
    pub policy: &'a CompiledPolicy,
    /// Its id.
    pub id: u32,
    /// The programs were attached just now: connections that they do not remember can have come in before.
    pub is_first: bool,
    /// Ports that somebody in the network namespace listens on.
    pub listening: &'a BTreeSet<u16>,
    /// The namespace's own addresses.
    pub own: &'a BTreeSet<IpAddr>,
    /// The names by which the address was learned, and the one with this hash if it is not 0; `None` if one of
    /// them is lost.
    pub names: &'a dyn Fn(IpAddr, u64) -> Option<Vec<DomainName>>,
    /// The names by which it was learned and that have run out.
    pub over: &'a dyn Fn(IpAddr) -> Vec<DomainName>,
}

/// The fate of one connection. As the programs judge its next packet, if there were one.
#[must_use]
pub fn fate(found: &Found, view: &View<'_>) -> Fate {
    let remote = found.remote.ip();
    if stays(remote, view) {
        return Fate::Keep;
    }
    let known = found.connection.as_ref().filter(|known| is_of(known, found));
    let opened_there = match known {
        Some(known) => known.direction == Direction::Ingress as u32,
        None => view.is_first && view.listening.contains(&found.local.port()),
    };
    if opened_there || known.is_some_and(|known| known.policy == view.id) {
        return if known.is_some() { Fate::Keep } else { Fate::Accepted };
    }
    let flow = Flow {
        protocol: protocol::TCP,
        address: remote,
        port: found.remote.port(),
        direction: Direction::Egress,
    };
    let allowed_by = known.map_or(0, |known| known.name);
    let verdict = |names: &[DomainName]| lookup_compiled(view.policy, names, flow);
    let names = (view.names)(remote, allowed_by).map(|mut names| {
        if allowed_by != 0 {
            // It may have been allowed by these too. What one of them denies is no reason to end it.
            let over = (view.over)(remote).into_iter();
            names.extend(over.filter(|name| verdict(std::slice::from_ref(name)) == Verdict::Allow));
        }
        names
    });
    match names.map(|names| verdict(&names)) {
        Some(Verdict::Deny) => Fate::Reset { is_known: known.is_some() },
        // What cannot be judged here is left to the programs.
        _ => Fate::Keep,
    }
}

/// Whether it leads to one of the pod's own resolvers, from where the policy has to learn or to refuse, and its beginning may have
/// been seen by nobody: then nothing is learned by it, and what it asks for is refused where names are. An audited pod keeps it.
#[must_use]
pub fn may_be_unread(found: &Found, view: &View<'_>) -> bool {
    let (policy, remote) = (view.policy, found.remote.ip());
    let reads = !policy.names.is_empty() || !policy.automaton.is_empty() || policy.dns.refuse_unmatched;
    let came_in = |known: &Connection| is_of(known, found) && known.direction == Direction::Ingress as u32;
    reads
        && !policy.enforcement.is_nothing()
        && found.state == states::ESTABLISHED
        && found.remote.port() == DNS_PORT
        && policy.resolvers.contains(&u128::from_be_bytes(Address::from(remote).bytes()))
        && !stays(remote, view)
        && !found.connection.as_ref().is_some_and(came_in)
        && !view.listening.contains(&found.local.port())
}

/// Whether what goes there stays in the network that it is in.
fn stays(remote: IpAddr, view: &View<'_>) -> bool {
    remote.is_loopback() || view.own.contains(&remote)
}

/// Whether what is remembered is of the present connection: a socket can be connected again.
fn is_of(known: &Connection, found: &Found) -> bool {
    known.remote == Address::from(found.remote.ip())
        && known.remote_port == found.remote.port()
        && (known.local_port == 0 || known.local_port == found.local.port())
}

#[cfg(test)]
mod tests {
    use l7egg_crds::PolicySpec;
    use l7egg_policy::{ResolvConf, Source, compile};

    use super::*;
    use crate::sockets::sock_diag;

    const ID: u32 = 7;

    const NAME: &str = "{egress: [{to: [{cidr: 192.0.2.0/24}]}, {to: [{domainNames: [api.example.com]}]}]}";

    /// The fate of a connection under a policy of one network and one name.
    fn judged(connection: Option<Connection>, remote: &str, local_port: u16, is_first: bool) -> Fate {
        judged_where_over(&[], NAME, connection, remote, local_port, is_first)
    }

    fn judged_where_over(
        over: &[&str],
        policy: &str,
        connection: Option<Connection>,
        remote: &str,
        local_port: u16,
        is_first: bool,
    ) -> Fate {
        let mut found = sock_diag::tests::found(remote, local_port);
        found.connection = connection;
        let over = |_: IpAddr| over.iter().map(|name| DomainName::parse(name).unwrap()).collect();
        looked_at(policy, is_first, |view| fate(&found, &View { over: &over, ..*view }))
    }

    fn looked_at<T>(policy: &str, is_first: bool, look: impl FnOnce(&View<'_>) -> T) -> T {
        let spec: PolicySpec = serde_yaml::from_str(policy).unwrap();
        let conf = ResolvConf {
            servers: ["10.96.0.10", "10.0.0.9", "127.0.0.53"].map(|it| it.parse().unwrap()).into(),
            ..ResolvConf::default()
        };
        let policy = compile(&[Source { name: "Egg a/b".into(), spec: &spec }], &conf).unwrap();
        let names = |_: IpAddr, name: u64| match name {
            0 => Some(vec![]),
            1 => Some(vec![DomainName::parse("api.example.com").unwrap()]),
            2 => Some(vec![DomainName::parse("other.example.com").unwrap()]),
            _ => None,
        };
        look(&View {
            policy: &policy,
            id: ID,
            is_first,
            listening: &[8080].into(),
            own: &["10.0.0.9".parse().unwrap()].into(),
            names: &names,
            over: &|_| Vec::new(),
        })
    }

    #[test]
    fn dns_from_before_is_not_read_where_it_should_be() {
        let resolver = "10.96.0.10:53";
        let is_unread = |policy: &str, remote: &str, local_port: u16, known: Option<Connection>| {
            let mut found = sock_diag::tests::found(remote, local_port);
            found.connection = known;
            looked_at(policy, true, |view| may_be_unread(&found, view))
        };
        let refuses = "{dns: {refuseUnmatched: true}, egress: [{to: [{cidr: 192.0.2.0/24}]}]}";
        assert!(is_unread(NAME, resolver, 4000, None) && is_unread(refuses, resolver, 4000, None));
        assert!(
            is_unread(NAME, resolver, 4000, known(resolver, ID, Direction::Egress, 0)),
            "a packet came between"
        );
        assert!(!is_unread("{egress: [{to: [{cidr: 192.0.2.0/24}]}]}", resolver, 4000, None), "no names");
        assert!(
            !is_unread(NAME, "10.96.0.11:53", 4000, None) && !is_unread(NAME, "10.96.0.10:80", 4000, None)
        );
        assert!(!is_unread(NAME, resolver, 8080, None), "it came in");
        assert!(!is_unread(NAME, resolver, 4000, known(resolver, ID, Direction::Ingress, 0)));
        let audit = NAME.replacen('{', "{mode: Audit, ", 1);
        assert!(!is_unread(&audit, resolver, 4000, None), "nothing is done to it");
        assert!(!is_unread(NAME, "10.0.0.9:53", 4000, None) && !is_unread(NAME, "127.0.0.53:53", 4000, None));
        let mut waiting = sock_diag::tests::found(resolver, 4000);
        waiting.state = 1 << 2;
        assert!(!looked_at(NAME, true, |view| may_be_unread(&waiting, view)), "it will be (SYN_SENT)");
    }

    /// What the programs remember of it.
    fn known(remote: &str, policy: u32, direction: Direction, name: u64) -> Option<Connection> {
        let found = sock_diag::tests::found(remote, 0);
        Some(Connection {
            name,
            remote: Address::from(found.remote.ip()),
            remote_port: found.remote.port(),
            local_port: 0,
            policy,
            direction: direction as u32,
            subject: 1,
            ..Connection::default()
        })
    }

    const DENIED: &str = "198.51.100.1:443";

    #[test]
    fn what_is_not_allowed_any_more_ends() {
        let was = |name| known(DENIED, ID - 1, Direction::Egress, name);
        assert_eq!(judged(was(0), DENIED, 4000, false), Fate::Reset { is_known: true });
        assert_eq!(judged(was(1), DENIED, 4000, false), Fate::Keep, "by its name, whatever the TTL");
        assert_eq!(judged(was(2), DENIED, 4000, false), Fate::Reset { is_known: true });
        assert_eq!(judged(was(3), DENIED, 4000, false), Fate::Keep, "a name that is lost");
        let now = known(DENIED, ID, Direction::Egress, 0);
        assert_eq!(judged(now, DENIED, 4000, false), Fate::Keep, "judged by this policy");
        let allowed = "192.0.2.1:443";
        assert_eq!(judged(known(allowed, 1, Direction::Egress, 0), allowed, 4000, false), Fate::Keep);
    }

    #[test]
    fn another_name_that_allowed_it_may_have_run_out() {
        let was = |name| known(DENIED, ID - 1, Direction::Egress, name);
        let judged = |over: &[&str], policy: &str, name| {
            judged_where_over(over, policy, was(name), DENIED, 4000, false)
        };
        let reset = Fate::Reset { is_known: true };
        assert_eq!(judged(&["api.example.com"], NAME, 2), Fate::Keep);
        assert_eq!(judged(&["third.example.com"], NAME, 2), reset);
        assert_eq!(judged(&["api.example.com"], NAME, 0), reset, "no name allowed it");
        let denies = "{egress: [{to: [{domainNames: ['**.example.com']}]}, {action: Deny, to: [{domainNames: [api.example.com]}]}]}";
        assert_eq!(judged(&["api.example.com"], denies, 2), Fate::Keep, "it is not by that");
        assert_eq!(judged(&["third.example.com"], denies, 1), reset, "denied by its own name");
    }

    #[test]
    fn what_came_in_lives() {
        assert_eq!(judged(known(DENIED, 0, Direction::Ingress, 0), DENIED, 8080, false), Fate::Keep);
        assert_eq!(judged(None, DENIED, 8080, true), Fate::Accepted, "from before");
        assert_eq!(judged(None, DENIED, 8080, false), Fate::Reset { is_known: false }, "made up later");
    }

    #[test]
    fn what_was_opened_before_is_judged_by_its_address() {
        assert_eq!(judged(None, DENIED, 4000, true), Fate::Reset { is_known: false });
        assert_eq!(judged(None, "192.0.2.1:443", 4000, true), Fate::Keep);
    }

    #[test]
    fn what_is_remembered_of_another_connection_is_not_asked() {
        let other = known("198.51.100.2:443", ID, Direction::Egress, 0);
        assert_eq!(judged(other, DENIED, 4000, false), Fate::Reset { is_known: false });
    }

    #[test]
    fn what_stays_in_the_pod_is_free() {
        for remote in ["127.0.0.1:80", "[::1]:80", "10.0.0.9:80"] {
            assert_eq!(judged(None, remote, 4000, true), Fate::Keep, "{remote}");
        }
    }
}
