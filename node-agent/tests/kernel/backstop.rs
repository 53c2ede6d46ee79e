//! The backstop on the host's side of a pod's interface: what it must let through. What it must not is in the
//! adversary suite.

use std::path::PathBuf;
use std::time::Duration;

use l7egg_ebpf_common::abi::ABI_VERSION;
use l7egg_node_agent::netns::peers;
use l7egg_node_agent::netns::tc::{self, Direction, Target};

use crate::harness::{POD4, POD6, Setup};

/// Where a program on the host's side of the pod's interface is pinned.
fn pins(setup: &Setup, name: &str) -> PathBuf {
    setup.bpffs().join(format!("l7egg/v{ABI_VERSION}/interfaces/{}/{name}", setup.pod.uid()))
}

fn is_attached(setup: &Setup, name: &str, direction: Direction) -> bool {
    let node = setup.pod.node_netns();
    let attached = node.run(|| {
        // SAFETY: a valid C string.
        let interface = unsafe { libc::if_nametoindex(c"pod".as_ptr()) };
        tc::is_attached(name, direction, Target::new(interface, &node, &pins(setup, name)))
    });
    attached.expect("the node's namespace").expect("an answer")
}

#[test]
fn who_comes_by_the_pods_side_of_its_interface_is_answered() {
    // As where a CNI hands packets over there (bpf_redirect_peer): the program on the host's side does not see them.
    let setup = Setup::on_node("{egress: []}");
    let _server = setup.pod.serve(8080, 8080);
    let (node, pins) = (setup.pod.node_netns(), pins(&setup, "entering"));
    assert!(is_attached(&setup, "entering", Direction::Egress));
    let detached = node.run(|| peers::detach_named("entering", Direction::Egress, &node, &pins));
    detached.expect("the node's namespace").expect("to take the program away");
    assert!(!is_attached(&setup, "entering", Direction::Egress));
    assert_eq!(setup.pod.world_connect(&[&format!("tcp://{POD4}:8080")]), ["ok"]);
}

#[test]
fn allowed_traffic_of_every_kind_passes() {
    let setup = Setup::on_node(
        r#"
egress:
- to: [{domainNames: ["*.fresh.test"]}]
- to: [{cidr: 198.18.1.0/24}, {cidr: "2001:db8:18:1::/64"}]
"#,
    );
    let got = setup.pod.connect(&[
        "tcp4://n1.fresh.test:80",
        "tcp6://n2.fresh.test:80",
        "udp4://n3.fresh.test:123",
        "tcp://198.18.1.1:80",
        "udp://[2001:db8:18:1::1]:123",
        "icmp://198.18.1.1",
        "icmp://[2001:db8:18:1::1]",
        "tcp://198.18.2.1:80",
        "udp://198.18.2.1:123",
    ]);
    assert_eq!(got, ["ok", "ok", "ok", "ok", "ok", "ok", "ok", "denied", "denied"]);
}

#[test]
fn replies_pass_though_nothing_may_leave() {
    let setup = Setup::on_node("{egress: []}");
    let _server = setup.pod.serve(8080, 8080);
    let got = setup.pod.world_connect(&[
        &format!("tcp://{POD4}:8080"),
        &format!("tcp://[{POD6}]:8080"),
        &format!("udp://{POD4}:8080"),
        &format!("udp://[{POD6}]:8080"),
        &format!("icmp://{POD4}"),
        &format!("icmp://[{POD6}]"),
        &format!("tcp://{POD4}:8081"),
        &format!("tcp://[{POD6}]:8081"),
        &format!("udp://{POD4}:8081"),
        &format!("udp://[{POD6}]:8081"),
    ]);
    // The last four by resets and ICMP errors, which no socket of the pod sends.
    let refused = ["refused"; 4];
    assert_eq!(got[..6], ["ok"; 6]);
    assert_eq!(got[6..], refused);
}

#[test]
fn datagrams_in_pieces_pass_where_they_may() {
    let setup = Setup::on_node(
        r#"{egress: [{to: [{cidr: 198.18.1.0/24}, {cidr: "2001:db8:18:1::/64"}], ports: [{protocol: UDP, port: 123}]}]}"#,
    );
    let script = "
import socket
for family, address in ((socket.AF_INET, '198.18.1.1'), (socket.AF_INET6, '2001:db8:18:1::1')):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(3)
    s.connect((address, 123))
    s.send(b'x' * 8000)
    print(len(s.recv(9000)))
";
    let output = setup.pod.command("python3".as_ref(), &["-c", script]).output().expect("python3");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "8000\n8000\n", "{output:?}");
}

#[test]
fn replies_in_pieces_pass_though_nothing_may_leave() {
    // An echo of the pod's server, and one of its kernel.
    const ASK: &str = "
import socket, struct, sys
for address in sys.argv[1:]:
    six = ':' in address
    family = socket.AF_INET6 if six else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.settimeout(5)
    udp.sendto(b'x' * 8000, (address, 8080))
    print(len(udp.recv(9000)))
    raw = socket.socket(family, socket.SOCK_RAW, 58 if six else 1)
    raw.settimeout(5)
    message = struct.pack('!BBHHH', 128 if six else 8, 0, 0, 77, 1) + bytes(8000)
    if not six:
        # All that is not zero.
        message = message[:2] + struct.pack('!H', ~(0x0800 + 77 + 1) & 0xffff) + message[4:]
    raw.sendto(message, (address, 0))
    reply = b''
    while len(reply) < 8000 or reply[0] not in (0, 129):
        reply = raw.recv(9000)[0 if six else 20:]
    print(len(reply))
";
    let setup = Setup::on_node("{egress: []}");
    let _server = setup.pod.serve(8080, 8080);
    let output =
        setup.pod.in_world("python3".as_ref()).args(["-c", ASK, POD4, POD6]).output().expect("python3");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "8000\n8008\n".repeat(2), "{output:?}");
}

#[test]
fn live_connections_outlive_a_ttl_a_change_of_policy_and_the_agent() {
    let names = "{egress: [{to: [{domainNames: ['**.fresh.test']}]}]}";
    let mut setup = Setup::on_node(names);
    let _server = setup.pod.serve(8080, 8080);
    let out = setup.pod.hold("tcp4://n1.ttl1.fresh.test:80");
    let inbound = setup.pod.world_hold(&format!("tcp://{POD4}:8080"));
    std::thread::sleep(Duration::from_millis(2500));
    setup.enforce("{egress: [{to: [{domainNames: ['**.fresh.test', other.test]}]}]}");
    setup.restart_agent();
    setup.enforce(names);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(out.end()["outcome"], "ok");
    assert_eq!(inbound.end()["outcome"], "ok");
}

#[test]
fn a_released_pod_has_nothing_left_on_its_interface() {
    let mut setup = Setup::on_node("{egress: []}");
    let both = [("leaving", Direction::Ingress), ("entering", Direction::Egress)];
    assert!(both.iter().all(|(name, direction)| is_attached(&setup, name, *direction)));
    setup.release();
    assert!(!both.iter().any(|(name, direction)| is_attached(&setup, name, *direction)));
    assert_eq!(setup.backstop(), [""; 0], "not what it needed there either");
    assert_eq!(setup.pod.connect(&["tcp://198.18.2.1:80", "udp://198.18.2.1:123"]), ["ok", "ok"]);
}

#[test]
fn uninstalling_leaves_nothing_on_interfaces() {
    for version in ["v0", "own"] {
        let setup = Setup::on_node("{egress: []}");
        if version == "v0" {
            setup.become_another_version();
        }
        setup.remove_everything();
        assert_eq!(setup.backstop(), [""; 0], "{version}");
        assert!(!setup.bpffs().join("l7egg").exists());
        assert_eq!(setup.pod.connect(&["tcp://198.18.2.1:80", "udp://198.18.2.1:123"]), ["ok", "ok"]);
    }
}

#[test]
fn a_pod_that_ended_while_no_agent_ran_has_nothing_left() {
    let mut setup = Setup::on_node("{egress: []}");
    setup.pod.end_sandbox();
    std::fs::remove_dir(setup.pod.cgroup()).expect("an empty cgroup");
    setup.restart_agent();
    assert_eq!(setup.backstop(), [""; 0]);
    assert!(!setup.pins(&format!("interfaces/{}", setup.pod.uid())).exists());
}
