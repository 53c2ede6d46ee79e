//! What this node keeps reachable whatever the Eggs for it say: the cluster must not lose it.
//!
//! DNS to the node's own servers, its own addresses and replies to what comes in are free by what a policy means; the
//! guard is for the rest.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use ipnetwork::IpNetwork;
use l7egg_crds::{Port, Protocol};
use l7egg_policy::{Guard, Guarded};

/// The API server's addresses, with their ports.
pub type ApiServers = BTreeSet<SocketAddr>;

/// The guard of a node whose pods have addresses in these networks. What is no network guards nothing.
#[must_use]
pub fn guard(api_servers: &ApiServers, pod_cidrs: &[String]) -> Guard {
    let ports: BTreeSet<u16> = api_servers.iter().map(SocketAddr::port).collect();
    let addresses: BTreeSet<IpAddr> = api_servers.iter().map(|server| server.ip().to_canonical()).collect();
    let port = |protocol, port| Port { protocol, port: Some(i32::from(port)), end_port: None };
    let all = [
        Guarded {
            what: "API server",
            networks: addresses.into_iter().map(IpNetwork::from).collect(),
            ports: ports.into_iter().map(|number| port(Protocol::Tcp, number)).collect(),
        },
        // For the kubelet's probes.
        Guarded {
            what: "the node's pods",
            networks: pod_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            ports: Vec::new(),
        },
        // A lease that is not renewed takes the node's address away, hours after the Egg was applied. Servers may be
        // anywhere (RFC 2131 section 4.4.5); DHCPv6 clients speak to the link (RFC 8415 section 7.1).
        Guarded {
            what: "DHCP servers",
            networks: ["0.0.0.0/0", "ff02::1:2/128", "fe80::/10"]
                .iter()
                .filter_map(|it| it.parse().ok())
                .collect(),
            ports: vec![port(Protocol::Udp, 67), port(Protocol::Udp, 547)],
        },
    ];
    Guard(all.into_iter().filter(|guarded| !guarded.networks.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_needs() {
        let servers = ["10.96.0.1:443", "192.168.77.1:6443", "[fd00:77::1]:6443"];
        let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
        let guard = guard(&servers, &["10.88.1.0/24".into(), "what".into()]);
        assert!(guard.0.len() <= Guard::MAX_KINDS);
        assert_eq!(
            guard.lines(),
            [
                "API server 10.96.0.1, 192.168.77.1, fd00:77::1 (TCP 443, TCP 6443)",
                "the node's pods 10.88.1.0/24",
                "DHCP servers 0.0.0.0/0, ff02::1:2, fe80::/10 (UDP 67, UDP 547)",
            ]
        );
    }
}
