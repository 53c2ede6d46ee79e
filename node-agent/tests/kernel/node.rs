//! A node as the subject of its policy: all its processes but those of pods. The node is a scratch cgroup, with the network
//! of the pod's namespace.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::sys::{Stats, enable_stats};
use l7egg_crds::{PolicySpec, Port, Protocol};
use l7egg_ebpf_common::abi::PODS_CGROUPS;
use l7egg_node_agent::datapath::Datapath;
use l7egg_policy::{Guard, Guarded};

use crate::harness::{Link, POD4, POD6, Setup, policy, remove_within, seconds};

const DENIED: &str = "tcp://198.18.0.80:80";

/// A node with a pod that no Egg selects, and a service.
struct Node {
    setup: Setup,
    root: PathBuf,
    service: PathBuf,
}

impl Node {
    fn new() -> Self {
        let setup = Setup::with_link(Link::IsNode);
        let root = setup.pod.cgroup().ancestors().nth(2).expect("the node's cgroup").to_owned();
        let node = Self { service: root.join("system.slice/a.service"), root, setup };
        std::fs::create_dir_all(&node.service).expect("a cgroup");
        node
    }

    fn enforce(&mut self, yaml: &str) {
        self.setup.enforce_node(&self.root.clone(), &policy(yaml));
    }

    fn settle(&mut self, yaml: &str) -> usize {
        self.setup.settle_node(&self.root.clone(), &policy(yaml))
    }

    fn connect(&self, targets: &[&str]) -> Vec<String> {
        self.setup.pod.connect_in(&self.service, targets)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        remove(&self.root.join("system.slice"));
    }
}

fn remove(cgroup: &Path) {
    let _ = std::fs::write(cgroup.join("cgroup.kill"), "1");
    for _ in 0..100 {
        for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(entry.path());
        }
        if std::fs::remove_dir(cgroup).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_nodes_processes_are_judged_and_its_pods_are_not() {
    let mut node = Node::new();
    node.setup.pod.set_names("api.shop.test. 60 IN A 198.18.40.1\n");
    node.enforce("{egress: [{to: [{domainNames: [api.shop.test]}]}, {to: [{cidr: 198.18.41.0/24}]}]}");
    let targets = [DENIED, "udp://198.18.0.80:123", "tcp4://api.shop.test:80", "udp://198.18.41.1:123"];
    assert_eq!(node.connect(&targets), ["denied", "denied", "ok", "ok"]);
    assert_eq!(node.setup.pod.connect(&targets), ["ok"; 4]);
    // What is new is judged, or not, by where it is.
    let slice = node.root.join("user.slice");
    let pod = node.setup.pod.cgroup().with_file_name("pod-new");
    for (cgroup, expected) in [(&slice, "denied"), (&pod, "ok")] {
        std::fs::create_dir(cgroup).expect("a cgroup");
        assert_eq!(node.setup.pod.connect_in(cgroup, &[DENIED]), [expected]);
        remove(cgroup);
    }
    // Audit denies nothing.
    node.enforce("{mode: Audit, egress: []}");
    assert_eq!(node.connect(&targets), ["ok"; 4]);
}

/// As where kubelets, or what used them, have ended and left their directories.
#[test]
fn a_node_has_more_than_one_directory_with_pods() {
    let mut node = Node::new();
    let own = node.setup.pod.cgroup().parent().expect("a parent").to_owned();
    let ended = node.root.join("ended");
    let mut all: Vec<_> = (1..PODS_CGROUPS).map(|number| ended.join(format!("{number}/kubepods"))).collect();
    all.iter().for_each(|directory| std::fs::create_dir_all(directory).expect("a cgroup"));
    all.push(own);
    node.enforce("{egress: []}");
    node.setup.kernel.leave_alone(&all).expect("to leave them alone");
    assert_eq!(node.connect(&[DENIED]), ["denied"]);
    assert_eq!(node.setup.pod.connect(&[DENIED, "udp://198.18.0.80:123"]), ["ok", "ok"]);
    // One more is too many: what was there stays left alone.
    all.push(ended.clone());
    let error = node.setup.kernel.leave_alone(&all).expect_err("too many").to_string();
    assert!(error.contains("PODS is full") && error.contains("--cgroup-root"), "{error}");
    assert_eq!(node.setup.pod.connect(&[DENIED]), ["ok"]);
    assert!(remove_within(&ended, Duration::from_secs(2)));
}

#[test]
fn pods_keep_to_their_own_eggs() {
    let mut node = Node::new();
    node.enforce("{egress: [{to: [{cidr: 198.18.41.0/24}]}]}");
    node.setup.enforce("{egress: [{to: [{cidr: 198.18.42.0/24}]}]}");
    let targets =
        ["tcp://198.18.41.1:80", "tcp://198.18.42.1:80", "udp://198.18.41.1:123", "udp://198.18.42.1:123"];
    assert_eq!(node.connect(&targets), ["ok", "denied", "ok", "denied"]);
    assert_eq!(node.setup.pod.connect(&targets), ["denied", "ok", "denied", "ok"]);
    // Replies of both, also of connections from one to the other.
    let _of_pod = node.setup.pod.serve(8080, 8080);
    let _of_node = node.setup.pod.serve_in(&node.service.clone(), 8081, 8081);
    let inbound = [8080, 8081].map(|port| format!("tcp://{POD4}:{port}"));
    let inbound: Vec<&str> = inbound.iter().map(String::as_str).collect();
    for _ in 0..5 {
        assert_eq!(node.setup.pod.world_connect(&inbound), ["ok", "ok"]);
    }
    let udp = [8080, 8081].map(|port| format!("udp://[{POD6}]:{port}"));
    assert_eq!(node.setup.pod.world_connect(&udp.each_ref().map(String::as_str)), ["ok", "ok"]);
    assert_eq!(node.connect(&inbound), ["ok", "ok"]);
    assert_eq!(node.setup.pod.connect(&inbound), ["ok", "ok"]);
}

#[test]
fn sessions_from_before_live_and_what_the_node_opened_ends() {
    let policy = "{egress: []}";
    let mut node = Node::new();
    // As sshd's are: the listener's service holds the socket, whoever the session belongs to.
    let _sshd = node.setup.pod.serve_in(&node.service.clone(), 2222, 2222);
    let session = node.setup.pod.world_hold(&format!("tcp://{POD4}:2222"));
    let session6 = node.setup.pod.world_hold(&format!("tcp://[{POD6}]:2222"));
    let outbound = node.setup.pod.hold_in(&node.service, DENIED);
    let of_pod = node.setup.pod.hold(DENIED);
    node.enforce(policy);
    assert_eq!(node.settle(policy), 1);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(session.end()["outcome"], "ok");
    assert_eq!(session6.end()["outcome"], "ok");
    assert_ne!(outbound.end()["outcome"], "ok");
    assert_eq!(of_pod.end()["outcome"], "ok");
    let new = format!("tcp://{POD4}:2222");
    assert_eq!(
        node.setup.pod.world_connect(&[&new, &format!("tcp://{POD4}:2223"), &format!("icmp://{POD4}")]),
        ["ok", "refused", "ok"]
    );
}

#[test]
fn what_is_guarded_beats_deny() {
    let spec: PolicySpec =
        serde_yaml::from_str("{egress: [{action: Deny, to: [{cidr: 0.0.0.0/0}, {cidr: '::/0'}]}]}")
            .expect("a policy");
    let guard = Guard(vec![Guarded {
        what: "API server",
        networks: vec!["198.18.0.80/32".parse().expect("a network")],
        ports: vec![Port { protocol: Protocol::Tcp, port: Some(443), end_port: None }],
    }]);
    let yaml = serde_yaml::to_string(&guard.apply(&spec)).expect("YAML");
    let mut node = Node::new();
    node.enforce(&yaml);
    let targets = ["tcp://198.18.0.80:443", DENIED, "udp://198.18.0.80:443", "tcp://198.18.0.81:443"];
    assert_eq!(node.connect(&targets), ["ok", "denied", "denied", "denied"]);
    // DNS to the node's own servers, whatever is denied.
    let timeout = format!("+timeout={}", seconds(3));
    let arguments = ["+short", "+tries=1", &timeout, "n1.fresh.test"];
    let mut dig = node.setup.pod.command_in(&node.service, "dig".as_ref(), &arguments);
    let output = dig.output().expect("dig");
    assert!(!output.stdout.is_empty(), "{output:?}");
}

#[test]
fn what_the_kernel_answers_by_itself_passes() {
    // From raw sockets, as the kernel has its own for that.
    const SAY: &str = "
import socket, struct
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    return ~((total >> 16) + (total & 0xffff)) & 0xffff
for kind in (0, 8, 3):
    message = struct.pack('!BBHI', kind, 0, 0, 7)
    message = struct.pack('!BBHI', kind, 0, checksum(message), 7)
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(message, ('198.18.0.80', 0))
        print(kind, 'sent')
    except PermissionError:
        print(kind, 'denied')
";
    let mut node = Node::new();
    node.enforce("{egress: []}");
    let output =
        node.setup.pod.command_in(&node.service, "python3".as_ref(), &["-c", SAY]).output().expect("python3");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0 sent\n8 denied\n3 sent\n");
}

#[test]
fn what_a_node_costs_its_pods() {
    const SEND: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('198.18.41.1', 123))
for _ in range(50000):
    try:
        s.send(b'x' * 64)
    except OSError:
        pass
";
    let mut node = Node::new();
    node.enforce("{egress: [{to: [{cidr: 198.18.41.0/24}]}]}");
    let _stats = enable_stats(Stats::RunTime).expect("statistics of programs");
    let price = |node: &mut Node, cgroup: &Path| {
        let spent = |node: &mut Node| {
            let info = node.setup.kernel.program("egress").expect("the program").info().expect("its info");
            (info.run_time(), info.run_count())
        };
        let before = spent(node);
        let mut sender = node.setup.pod.command_in(cgroup, "python3".as_ref(), &["-c", SEND]);
        assert!(sender.status().expect("python3").success());
        let after = spent(node);
        let runs = after.1 - before.1;
        assert!(runs >= 50_000, "{runs}");
        (after.0 - before.0).as_nanos() / u128::from(runs)
    };
    let (of_pod, of_service) = (node.setup.pod.cgroup().to_owned(), node.service.clone());
    let (pod, service) = (price(&mut node, &of_pod), price(&mut node, &of_service));
    println!("ns per packet, of a UDP flow: {pod} of a pod, which is left alone; {service} of the node");
}
