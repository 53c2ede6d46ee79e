//! A pod in its node's network: its cgroup's programs judge what its processes send, and nobody else's.

use std::path::PathBuf;

use crate::harness::{Link, POD4, POD6, Pod, Setup};

const DENIED: &str = "tcp://198.18.0.80:80";

/// A cgroup of somebody else on the node.
struct Neighbour(PathBuf);

impl Neighbour {
    fn of(pod: &Pod) -> Self {
        let cgroup = pod.cgroup().with_file_name("neighbour");
        std::fs::create_dir(&cgroup).expect("a cgroup");
        Self(cgroup)
    }

    /// What becomes of its connections.
    fn connect(&self, pod: &Pod, target: &str) -> String {
        pod.connect_in(&self.0, &[target]).remove(0)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn a_pod_in_the_nodes_network_is_judged_and_its_neighbours_are_not() {
    let mut setup = Setup::with_link(Link::IsNode);
    let neighbour = Neighbour::of(&setup.pod);
    setup.pod.set_names("api.shop.test. 60 IN A 198.18.40.1\n");
    setup.enforce("{egress: [{to: [{domainNames: [api.shop.test]}]}]}");
    let pod = &setup.pod;
    assert_eq!(pod.connect(&[DENIED, "tcp4://api.shop.test:80"]), ["denied", "ok"]);
    assert_eq!(neighbour.connect(pod, DENIED), "ok");
    let _server = pod.serve(8080, 8080);
    let inbound = [&*format!("tcp://{POD4}:8080"), &format!("udp://[{POD6}]:8080")];
    assert_eq!(pod.world_connect(&inbound), ["ok", "ok"]);
    assert_eq!(pod.connect(&[&format!("tcp://{POD4}:8080"), "tcp://127.0.0.1:8080"]), ["ok", "ok"]);
}

#[test]
fn of_the_connections_from_before_only_the_pods_own_are_touched() {
    let policy = "{egress: []}";
    let mut setup = Setup::with_link(Link::IsNode);
    let neighbour = Neighbour::of(&setup.pod);
    let _server = setup.pod.serve(8080, 8080);
    let inbound = setup.pod.world_hold(&format!("tcp://{POD4}:8080"));
    let outbound = setup.pod.hold(DENIED);
    let others = setup.pod.hold_in(&neighbour.0, DENIED);
    setup.enforce(policy);
    assert_eq!(setup.settle(policy), 1);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(inbound.end()["outcome"], "ok");
    assert_ne!(outbound.end()["outcome"], "ok");
    assert_eq!(others.end()["outcome"], "ok");
}

/// What kube-proxy's rules do on a node: destinations of its own processes are changed before our programs see them.
const NAT: &str = "
add table ip nat
add chain ip nat output { type nat hook output priority -100; }
add chain ip nat prerouting { type nat hook prerouting priority -100; }
add rule ip nat output ip daddr 10.96.0.10 udp dport 53 dnat to 198.18.0.53
add rule ip nat output ip daddr 10.96.0.20 tcp dport 80 dnat to 198.18.20.1:80
add rule ip nat output ip daddr 10.96.0.40 tcp dport 80 dnat to 198.18.20.2:80
add rule ip nat output ip daddr 10.96.0.30 udp dport 123 dnat to 198.18.20.3:123
add rule ip nat prerouting tcp dport 30080 redirect to :8080
add rule ip nat prerouting udp dport 30080 redirect to :8080
";

#[test]
fn services_are_judged_as_they_were_asked_for() {
    let mut setup = Setup::with_link(Link::IsNode);
    let rules = setup.pod.command("nft".as_ref(), &[NAT]).output().expect("nft (package nftables)");
    if !rules.status.success() {
        println!("skipped: this kernel has no NAT: {}", String::from_utf8_lossy(&rules.stderr));
        return;
    }
    setup.pod.set_names("web.shop.svc.test. 30 IN A 10.96.0.20\napi.shop.test. 30 IN A 198.18.20.9\n");
    setup.pod.set_resolv_conf("nameserver 10.96.0.10\n");
    let policy = "{egress: [{to: [{domainNames: [web.shop.svc.test, api.shop.test]}], ports: [{port: 80}]}, {to: [{cidr: 10.96.0.30/32}]}]}";
    setup.enforce_asking(policy, "10.96.0.10");
    let pod = &setup.pod;
    let got = pod.connect(&[
        "tcp4://web.shop.svc.test:80",
        "tcp4://api.shop.test:80",
        "udp://10.96.0.30:123",
        "tcp://10.96.0.40:80",
        "tcp://198.18.20.1:80",
        "udp://198.18.20.3:123",
    ]);
    assert_eq!(got, ["ok", "ok", "ok", "denied", "denied", "denied"]);
    // By a NodePort: the reply leaves from another port than its socket's.
    let _server = pod.serve(8080, 8080);
    let inbound = [&*format!("tcp://{POD4}:30080"), &format!("udp://{POD4}:30080")];
    assert_eq!(pod.world_connect(&inbound), ["ok", "ok"]);
}

#[test]
fn a_datagram_that_is_held_back_goes_where_it_is_judged() {
    const HELD: &str = "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.connect(('2001:db8:18:20::3', 123))
s.send(b'?', socket.MSG_MORE)
s.connect(('2001:db8:18:20::4', 123))
try:
    s.send(b'?')
    print('sent', flush=True)
except PermissionError:
    print('denied', flush=True)
";
    let mut setup = Setup::with_link(Link::IsNode);
    setup.enforce("{egress: [{to: [{cidr: '2001:db8:18:20::4/128'}]}]}");
    assert_eq!(says(&setup, HELD), "denied");
}

#[test]
fn nor_where_its_socket_has_sent_to() {
    // Connected to what may not be reached, of which UDP is not told; the second sendto asks no hook, as something is held back.
    const HELD: &str = "
import ctypes, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('198.18.0.81', 123))
s.sendto(b'?', ('198.18.0.80', 123))
s.send(b'?', socket.MSG_MORE)
ctypes.CDLL(None).connect(s.fileno(), b'\\0' * 16, 16)
try:
    s.sendto(b'', ('198.18.0.80', 123))
    print('sent', flush=True)
except PermissionError:
    print('denied', flush=True)
";
    let mut setup = Setup::with_link(Link::IsNode);
    setup.enforce("{egress: [{to: [{cidr: 198.18.0.80/32}]}]}");
    assert_eq!(says(&setup, HELD), "denied");
}

/// What a script prints in the pod.
fn says(setup: &Setup, script: &str) -> String {
    let output = setup.pod.command("python3".as_ref(), &["-c", script]).output().expect("python3");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
