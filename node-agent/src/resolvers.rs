//! Which DNS servers are a pod's own, as the kubelet decides it (`pkg/kubelet/network/dns/dns.go`,
//! `getPodDNSType` and `GetPodDNS`).

use std::net::IpAddr;

use l7egg_crds::AssignedPod;
use l7egg_policy::{DomainName, ResolvConf};

/// What a node's kubelet gives to the resolvers of its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeResolvers {
    /// The kubelet's `clusterDNS`: for pods with `dnsPolicy` ClusterFirst.
    pub cluster: Vec<IpAddr>,
    /// The kubelet's `clusterDomain`: Services are below it.
    pub cluster_domain: Option<DomainName>,
    /// The nameservers of the kubelet's `resolvConf`: for pods with `dnsPolicy` Default.
    pub node: Vec<IpAddr>,
    /// The search domains of the kubelet's `resolvConf`: for all pods but those with `dnsPolicy` None.
    pub node_search: Vec<DomainName>,
    /// What it gave before, the latest first. A pod keeps what it began with.
    pub former: Vec<Former>,
}

/// What a kubelet gave until there was something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The newest cgroup of a pod at that time: their ids rise, and later pods have nothing of it. While that is not known, all do.
    pub until: Option<u64>,
    /// That. It has none before it.
    pub given: NodeResolvers,
}

impl Former {
    /// Whether a pod with this cgroup may have begun with it.
    #[must_use]
    pub fn is_of(&self, cgroup_id: u64) -> bool {
        self.until.is_none_or(|until| cgroup_id <= until)
    }
}

/// What matters of the pod's `/etc/resolv.conf`, of which nobody tells from what time it is: all that may be in it. `cgroup_id` is of
/// the pod's cgroup, if it has one by now.
#[must_use]
pub fn resolv_conf(pod: &AssignedPod, cgroup_id: Option<u64>, node: &NodeResolvers) -> ResolvConf {
    let mut all = given(pod, node);
    for former in node.former.iter().filter(|former| cgroup_id.is_some_and(|id| former.is_of(id))) {
        let ResolvConf { servers, search, .. } = given(pod, &former.given);
        all.servers.extend(servers);
        all.search.extend(search);
    }
    all
}

fn given(pod: &AssignedPod, node: &NodeResolvers) -> ResolvConf {
    let own = pod.dns.searches.iter().filter_map(|domain| DomainName::parse(domain).ok());
    ResolvConf {
        servers: servers(pod, node).collect(),
        search: search(pod, node).collect(),
        own_search: own.collect(),
    }
}

fn servers<'a>(pod: &'a AssignedPod, node: &'a NodeResolvers) -> impl Iterator<Item = IpAddr> + 'a {
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
    given.iter().copied().chain(own)
}

/// All but the pod's own.
fn search<'a>(pod: &'a AssignedPod, node: &'a NodeResolvers) -> impl Iterator<Item = DomainName> + 'a {
    let is_cluster_first = match pod.dns.policy.as_str() {
        "None" | "Default" => false,
        "ClusterFirstWithHostNet" => true,
        _ => !pod.host_network,
    };
    let domain = node.cluster_domain.as_ref().filter(|_| is_cluster_first);
    let services = domain.into_iter().flat_map(|domain| {
        [format!("{}.svc.{domain}", pod.namespace), format!("svc.{domain}"), domain.to_string()]
    });
    let of_node = node.node_search.iter().filter(|_| pod.dns.policy != "None").cloned();
    services.filter_map(|domain| DomainName::parse(&domain).ok()).chain(of_node)
}

/// The search domains of a `resolv.conf`: those of its last `search` or `domain` line. The root, and what is no name, is
/// left out.
#[must_use]
pub fn search_domains(resolv_conf: &str) -> Vec<DomainName> {
    let mut lines = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next()?, "search" | "domain").then_some(words)
    });
    lines.next_back().into_iter().flatten().filter_map(|domain| DomainName::parse(domain).ok()).collect()
}

/// The cluster's domain, from the search domains of a pod that asks the cluster's DNS: what is behind `svc.`.
#[must_use]
pub fn cluster_domain(search: &[DomainName]) -> Option<DomainName> {
    search.iter().find_map(|domain| DomainName::parse(domain.to_string().strip_prefix("svc.")?).ok())
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
            ..NodeResolvers::default()
        };
        let nameservers = own.iter().map(ToString::to_string).collect();
        let pod = AssignedPod {
            host_network,
            dns: PodDns { policy: policy.into(), nameservers, searches: Vec::new() },
            ..AssignedPod::default()
        };
        resolv_conf(&pod, None, &node).servers.into_iter().map(|address| address.to_string()).collect()
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
        let node = NodeResolvers { node: vec!["1.1.1.1".parse().unwrap()], ..NodeResolvers::default() };
        assert_eq!(resolv_conf(&AssignedPod::default(), None, &node).servers.len(), 1);
    }

    #[test]
    fn pods_that_began_before_a_change_have_what_was_given_then() {
        let node = |server: &str, search: &str| NodeResolvers {
            node: vec![server.parse().unwrap()],
            node_search: vec![DomainName::parse(search).unwrap()],
            ..NodeResolvers::default()
        };
        let first = Former { until: Some(10), given: node("192.0.2.1", "one.example") };
        let second = Former { until: None, given: node("192.0.2.2", "two.example") };
        let now = NodeResolvers { former: vec![second, first], ..node("192.0.2.3", "three.example") };
        let found = |policy: &str, cgroup_id: Option<u64>| {
            let dns = PodDns { policy: policy.into(), ..PodDns::default() };
            let ResolvConf { servers, search, .. } =
                resolv_conf(&AssignedPod { dns, ..AssignedPod::default() }, cgroup_id, &now);
            (servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), search.len())
        };
        assert_eq!(found("Default", Some(10)), ("192.0.2.1 192.0.2.2 192.0.2.3".to_owned(), 3));
        assert_eq!(found("Default", Some(11)), ("192.0.2.2 192.0.2.3".to_owned(), 2));
        assert_eq!(found("Default", None), ("192.0.2.3".to_owned(), 1), "it has not begun");
        assert_eq!(found("None", Some(1)), (String::new(), 0));
    }

    #[test]
    fn search_by_dns_policy() {
        let node = NodeResolvers {
            cluster_domain: DomainName::parse("cluster.local").ok(),
            node_search: vec![DomainName::parse("corp.example").unwrap()],
            ..NodeResolvers::default()
        };
        let search = |policy: &str, searches: &[&str]| {
            let searches = searches.iter().map(ToString::to_string).collect();
            let dns = PodDns { policy: policy.into(), nameservers: Vec::new(), searches };
            let pod = AssignedPod { namespace: "shop".into(), dns, ..AssignedPod::default() };
            let ResolvConf { search, own_search, .. } = resolv_conf(&pod, None, &node);
            let found = search.into_iter().chain(own_search).map(|domain| domain.to_string());
            found.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            search("ClusterFirst", &["own.example", "."]),
            "cluster.local corp.example own.example shop.svc.cluster.local svc.cluster.local"
        );
        assert_eq!(search("Default", &[]), "corp.example");
        assert_eq!(search("None", &["own.example"]), "own.example");
    }

    #[test]
    fn search_lines() {
        let found =
            search_domains("domain one.example\nsearch l7egg-system.svc.k8s.example svc.k8s.example . \n");
        assert_eq!(found.len(), 2);
        assert_eq!(cluster_domain(&found).unwrap().to_string(), "k8s.example");
        assert_eq!(cluster_domain(&search_domains("nameserver 1.1.1.1")), None);
    }

    #[test]
    fn nameserver_lines() {
        let text = "# nameserver 1.1.1.1\nsearch a b\n nameserver 10.0.0.1 x\nnameserver\nnameserver fe80::1%eth0\noptions nameserver\n";
        let found: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "fe80::1"]);
    }
}
