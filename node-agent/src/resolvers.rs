//! Which DNS servers are a pod's own, as the kubelet decides it (`pkg/kubelet/network/dns/dns.go`,
//! `getPodDNSType` and `GetPodDNS`).

use std::{collections::BTreeSet, net::IpAddr};

use l7egg_crds::AssignedPod;

/// The DNS servers that a node's kubelet gives to its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeResolvers {
    /// The kubelet's `clusterDNS`: for pods with `dnsPolicy` ClusterFirst.
    pub cluster: Vec<IpAddr>,
    /// The nameservers of the kubelet's `resolvConf`: for pods with `dnsPolicy` Default.
    pub node: Vec<IpAddr>,
}

/// The DNS servers that the pod's `/etc/resolv.conf` names.
#[must_use]
pub fn resolvers(pod: &AssignedPod, node: &NodeResolvers) -> BTreeSet<IpAddr> {
    let given: &[IpAddr] = match pod.dns.policy.as_str() {
        "None" => &[],
        "Default" => &node.node,
        "ClusterFirstWithHostNet" => &node.cluster,
        // ClusterFirst, which is what the API server writes where nothing is written.
        _ if pod.host_network => &node.node,
        _ => &node.cluster,
    };
    // A kubelet without clusterDNS falls back to the node's servers.
    let given = if given.is_empty() && pod.dns.policy != "None" { &node.node } else { given };
    let own = pod.dns.nameservers.iter().filter_map(|server| parse(server));
    given.iter().copied().chain(own).collect()
}

/// The nameservers of a `resolv.conf` (`man 5 resolv.conf`), in order. Lines that it cannot read are skipped, as
/// the C library does.
#[must_use]
pub fn nameservers(resolv_conf: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next().and_then(parse)).flatten()
    };
    resolv_conf.lines().filter_map(server).collect()
}

/// An address; `fe80::1%eth0` without its zone, which packets do not carry.
fn parse(address: &str) -> Option<IpAddr> {
    address.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use l7egg_crds::PodDns;

    use super::*;

    fn asked(policy: &str, host_network: bool, own: &[&str]) -> Vec<String> {
        let node = NodeResolvers {
            cluster: vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()],
            node: vec!["198.18.0.53".parse().unwrap()],
        };
        let nameservers = own.iter().map(ToString::to_string).collect();
        let pod = AssignedPod {
            host_network,
            dns: PodDns { policy: policy.into(), nameservers },
            ..AssignedPod::default()
        };
        resolvers(&pod, &node).into_iter().map(|address| address.to_string()).collect()
    }

    #[test]
    fn by_dns_policy() {
        let cluster = ["10.96.0.10", "fd00:96::a"];
        assert_eq!(asked("ClusterFirst", false, &[]), cluster);
        assert_eq!(asked("", false, &[]), cluster);
        assert_eq!(asked("ClusterFirst", true, &[]), ["198.18.0.53"]);
        assert_eq!(asked("ClusterFirstWithHostNet", true, &[]), cluster);
        assert_eq!(asked("Default", false, &[]), ["198.18.0.53"]);
        assert_eq!(asked("None", false, &["9.9.9.9"]), ["9.9.9.9"]);
        assert_eq!(asked("None", true, &[]), [""; 0]);
    }

    #[test]
    fn dns_config_adds_and_nonsense_is_left_out() {
        assert_eq!(
            asked("Default", false, &["9.9.9.9", "what", "fe80::1%eth0"]),
            ["9.9.9.9", "198.18.0.53", "fe80::1"]
        );
    }

    #[test]
    fn without_cluster_dns_the_nodes_servers() {
        let node = NodeResolvers { cluster: vec![], node: vec!["1.1.1.1".parse().unwrap()] };
        assert_eq!(resolvers(&AssignedPod::default(), &node).len(), 1);
    }

    #[test]
    fn resolv_conf() {
        let text = "# nameserver 1.1.1.1\nsearch a b\n nameserver 10.0.0.1 x\nnameserver\nnameserver fe80::1%eth0\noptions nameserver\n";
        let found: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "fe80::1"]);
    }
}
