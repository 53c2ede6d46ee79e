//! The demo's pods, names, Eggs, and what should become of each connection.

use crate::cluster::{Expectation, Pod, PodPlan, blocked, reached};

/// Names that stand for places on the internet, each with its own addresses.
pub const ZONE: &str = "\
api.stripe.test.        30 IN A    198.18.0.80
api.stripe.test.        30 IN AAAA 2001:db8:18::80
ftp.debian.test.        30 IN A    198.18.0.81
ftp.debian.test.        30 IN AAAA 2001:db8:18::81
de.ftp.debian.test.     30 IN A    198.18.0.82
de.ftp.debian.test.     30 IN AAAA 2001:db8:18::82
eu-west.images.s3.test. 30 IN CNAME edge.cdn.test.
edge.cdn.test.          30 IN A    198.18.0.83
edge.cdn.test.          30 IN AAAA 2001:db8:18::83
example.test.           30 IN A    198.18.0.84
example.test.           30 IN AAAA 2001:db8:18::84
";

/// The Egg that is applied.
pub const EGG: &str = "\
apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {name: checkout}
spec:
  podSelector: {matchLabels: {app: checkout}}
  egress:
  - to:
    - domainNames: [api.stripe.test, '*.debian.test', '**.s3.test']
    ports: [{protocol: TCP, port: 443}]
  - to:
    - {cidr: 198.18.32.0/24, except: [198.18.32.128/25]}
    - {cidr: '2001:db8:18:2::/64'}
    ports: [{protocol: TCP, port: 8000, endPort: 8100}, {protocol: UDP, port: 123}]
  - action: Deny
    to: [{cidr: 198.18.32.66/32}, {cidr: '2001:db8:18:2::66/128'}]
";

/// The same with another name.
pub fn changed_egg() -> String {
    EGG.replace("api.stripe.test", "example.test")
}

/// Two pods that the Egg selects, one on each node, and one that it does not.
pub fn pods(nodes: [&str; 2]) -> [PodPlan; 3] {
    [
        PodPlan::new("checkout-1").label("app", "checkout").on(nodes[0]),
        PodPlan::new("checkout-2").label("app", "checkout").on(nodes[1]),
        PodPlan::new("website").label("app", "website").on(nodes[0]),
    ]
}

/// One table.
pub struct Step {
    /// What it shows.
    pub title: &'static str,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// One connection.
pub struct Line {
    /// The pod's name.
    pub pod: &'static str,
    /// Why it should come out so.
    pub egg_says: &'static str,
    /// Where to, and what should become of it.
    pub expectation: Expectation,
}

fn line(pod: &'static str, expectation: Expectation, egg_says: &'static str) -> Line {
    Line { pod, egg_says, expectation }
}

/// Before the first Egg and after the last: all is reached.
pub fn without_egg(title: &'static str) -> Step {
    let mut lines = Vec::new();
    for pod in ["checkout-1", "checkout-2", "website"] {
        lines.push(line(pod, reached("tcp4://example.test:443"), "(no Egg)"));
        lines.push(line(pod, reached("udp6://example.test:123"), "(no Egg)"));
    }
    Step { title, lines }
}

/// While the Egg is in force.
pub fn with_egg(pods: &[Pod; 3]) -> Step {
    let [first, second, _] = pods;
    let one = |expectation, egg_says| line("checkout-1", expectation, egg_says);
    let two = |expectation, egg_says| line("checkout-2", expectation, egg_says);
    let website = |expectation, egg_says| line("website", expectation, egg_says);
    let server = |address: String| format!("tcp://{address}:{}", Pod::PORT);
    let lines = vec![
        one(reached("tcp4://api.stripe.test:443"), "allow api.stripe.test TCP 443"),
        one(reached("tcp6://api.stripe.test:443"), "allow api.stripe.test TCP 443"),
        one(blocked("tcp4://api.stripe.test:80"), "443 only"),
        one(reached("tcp6://ftp.debian.test:443"), "allow *.debian.test"),
        one(blocked("tcp4://de.ftp.debian.test:443"), "* is one label"),
        one(reached("tcp4://eu-west.images.s3.test:443"), "allow **.s3.test, here a CNAME"),
        one(blocked("tcp4://example.test:443"), "nothing: denied"),
        one(blocked("tcp6://example.test:443"), "nothing: denied"),
        two(reached("tcp4://198.18.32.1:8050"), "allow 198.18.32.0/24 TCP 8000-8100"),
        two(reached("udp4://198.18.32.1:123"), "allow 198.18.32.0/24 UDP 123"),
        two(reached("tcp6://[2001:db8:18:2::1]:8000"), "allow 2001:db8:18:2::/64"),
        two(blocked("tcp4://198.18.32.1:9000"), "8000-8100 only"),
        two(blocked("tcp4://198.18.32.200:8050"), "except 198.18.32.128/25"),
        two(blocked("tcp4://198.18.32.66:8050"), "deny 198.18.32.66"),
        two(blocked("tcp6://[2001:db8:18:2::66]:8050"), "deny 2001:db8:18:2::66"),
        two(blocked("icmp4://198.18.32.1"), "TCP and UDP only"),
        website(reached("tcp4://example.test:443"), "(does not select this pod)"),
        website(reached("tcp6://example.test:443"), "(does not select this pod)"),
        website(reached(server(first.address4.to_string())), "(replies to what comes in pass)"),
        website(reached(server(format!("[{}]", second.address6))), "(replies to what comes in pass)"),
    ];
    Step { title: "the Egg checkout is in force", lines }
}

/// After the change.
pub fn with_changed_egg() -> Step {
    let mut lines = Vec::new();
    for pod in ["checkout-1", "checkout-2"] {
        lines.push(line(pod, blocked("tcp4://api.stripe.test:443"), "nothing any more: denied"));
        lines.push(line(pod, blocked("tcp6://api.stripe.test:443"), "nothing any more: denied"));
        lines.push(line(pod, reached("tcp4://example.test:443"), "allow example.test TCP 443"));
        lines.push(line(pod, reached("tcp6://example.test:443"), "allow example.test TCP 443"));
    }
    Step { title: "the Egg is changed: example.test instead of api.stripe.test", lines }
}
