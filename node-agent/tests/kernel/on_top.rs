//! Pods whose interface is a part of the node's (macvlan, ipvlan): the programs on the cgroup enforce, and there is no backstop.

use std::process::Command;
use std::time::Duration;

use l7egg_node_agent::datapath::Cover;

use crate::harness::{Link, POD4, POD6, Setup};
use crate::sandbox::sent_raw;

/// Whether the kernel has such interfaces; said, if not.
fn is_lacking(kind: &str) -> bool {
    let script = format!(
        "ip link add lower type veth peer name other && ip link add link lower name upper type {kind}"
    );
    let output = Command::new("unshare").args(["--net", "sh", "-c", &script]).output().expect("unshare");
    if !output.status.success() {
        println!("skipped: this kernel has no {kind}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    !output.status.success()
}

fn is_enforced(kind: &'static str) {
    if is_lacking(kind) {
        return;
    }
    let policy = r#"{egress: [{to: [{domainNames: ["*.fresh.test"]}]}, {to: [{cidr: 198.18.1.0/24}, {cidr: "2001:db8:18:7::/64"}]}]}"#;
    let mut setup = Setup::with_link(Link::OnTop(kind));
    let free = setup.pod.hold("tcp://198.18.2.1:80");
    let _server = setup.pod.serve(8080, 8080);
    // What the harness finds of its cover, it compares with what there should be: none of `eth0`.
    setup.enforce(policy);
    assert_eq!(setup.settle(policy), 1);
    assert_ne!(free.end()["outcome"], "ok", "what was open is not allowed");
    let allowed = [
        "tcp4://n1.fresh.test:80",
        "tcp6://n2.fresh.test:80",
        "udp4://n3.fresh.test:123",
        "tcp://198.18.1.1:80",
        "tcp://[2001:db8:18:7::1]:80",
        "udp://[2001:db8:18:7::1]:123",
        "icmp://198.18.1.1",
    ];
    assert_eq!(setup.pod.connect(&allowed), ["ok"; 7]);
    let denied = ["tcp://198.18.2.1:80", "tcp://[2001:db8:18:8::1]:80", "udp://198.18.2.1:123"];
    assert_eq!(setup.pod.connect(&denied), ["denied"; 3]);
    let replies = [
        format!("tcp://{POD4}:8080"),
        format!("tcp://[{POD6}]:8080"),
        format!("udp://{POD4}:8080"),
        format!("udp://[{POD6}]:8080"),
        format!("icmp://{POD4}"),
    ];
    let replies: Vec<&str> = replies.iter().map(String::as_str).collect();
    assert_eq!(setup.pod.world_connect(&replies), ["ok"; 5]);

    // The next agent finds it as the first did, and nothing is cut.
    let held = setup.pod.hold("tcp4://n4.fresh.test:80");
    setup.restart_agent();
    assert_eq!(setup.try_cover(), Cover::Part { uncovered: vec!["eth0".into()] });
    setup.enforce(policy);
    assert_eq!(setup.settle(policy), 0);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(held.end()["outcome"], "ok");
    assert_eq!(setup.pod.connect_one("tcp4://n5.fresh.test:80"), "ok");
    // As README.md says of frames that a process with CAP_NET_RAW writes.
    assert_eq!(sent_raw(&setup), ["secret", "ARP"]);
}

#[test]
fn a_pod_on_macvlan_is_enforced_by_its_cgroup() {
    is_enforced("macvlan");
}

#[test]
fn a_pod_on_ipvlan_is_enforced_by_its_cgroup() {
    is_enforced("ipvlan");
}
