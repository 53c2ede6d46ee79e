//! CIDRs, ports and protocols.

use std::time::Duration;

use l7egg_ebpf_common::abi::Counter;
use l7egg_node_agent::datapath::Datapath;

use crate::harness::Setup;

#[test]
fn an_unselected_pod_is_not_touched_and_a_released_one_is_free_again() {
    let mut setup = Setup::new();
    let open = ["tcp://198.18.0.80:80", "udp://198.18.0.80:123", "tcp://[2001:db8:18::80]:80"];
    assert_eq!(setup.pod.connect(&open), ["ok", "ok", "ok"]);
    setup.enforce("{egress: []}");
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "udp://198.18.0.80:123"]), ["denied", "denied"]);
    setup.kernel.release(setup.pod.uid()).expect("a release");
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "udp://198.18.0.80:123"]), ["ok", "ok"]);
}

#[test]
fn cidrs_with_excepts_in_both_families() {
    let setup = Setup::with_policy(
        r#"
egress:
- to:
  - {cidr: 198.18.1.0/24, except: [198.18.1.128/25]}
  - {cidr: "2001:db8:18:5::/64", except: ["2001:db8:18:5::dead:0/112"]}
"#,
    );
    let got = setup.pod.connect(&[
        "tcp://198.18.1.127:80",
        "tcp://198.18.1.128:80",
        "tcp://198.18.2.1:80",
        "tcp://[2001:db8:18:5::1]:80",
        "tcp://[2001:db8:18:5::dead:1]:80",
        "tcp://[2001:db8:18:6::1]:80",
    ]);
    assert_eq!(got, ["ok", "denied", "denied", "ok", "denied", "denied"]);
}

#[test]
fn ports_belong_to_their_own_rule() {
    let setup = Setup::with_policy(
        r#"
egress:
- to: [{cidr: 198.18.1.1/32}, {cidr: "2001:db8:18::1/128"}]
  ports: [{protocol: TCP, port: 8000, endPort: 8100}]
- to: [{cidr: 198.18.1.2/32}, {cidr: "2001:db8:18::2/128"}]
  ports: [{protocol: UDP, port: 123}]
- to: [{cidr: 198.18.1.3/32}]
  ports: [{protocol: ICMP}]
"#,
    );
    let got = setup.pod.connect(&[
        "tcp://198.18.1.1:8000",
        "tcp://198.18.1.1:8050",
        "tcp://198.18.1.1:8100",
        "tcp://198.18.1.1:7999",
        "tcp://198.18.1.1:8101",
        "udp://198.18.1.1:8000",
        "udp://198.18.1.2:123",
        "tcp://198.18.1.2:8000",
        "udp://198.18.1.2:443",
        "icmp://198.18.1.3",
        "icmp://198.18.1.2",
        "tcp://[2001:db8:18::1]:8050",
        "tcp://[2001:db8:18::2]:8050",
        "udp://[2001:db8:18::2]:123",
    ]);
    assert_eq!(
        got,
        [
            "ok", "ok", "ok", "denied", "denied", "denied", "ok", "denied", "denied", "ok", "denied", "ok",
            "denied", "ok"
        ]
    );
}

#[test]
fn deny_beats_allow() {
    let setup = Setup::with_policy(
        r#"
egress:
- to: [{cidr: 0.0.0.0/0}, {cidr: "::/0"}]
- action: Deny
  to: [{cidr: 198.18.9.0/24}]
- action: Deny
  to: [{cidr: 198.18.8.0/24}]
  ports: [{protocol: TCP, port: 443}]
"#,
    );
    let got = setup.pod.connect(&[
        "tcp://198.18.9.1:80",
        "tcp://198.18.8.1:443",
        "tcp://198.18.8.1:80",
        "tcp://[2001:db8:18::9]:80",
    ]);
    assert_eq!(got, ["denied", "denied", "ok", "ok"]);
}

#[test]
fn icmpv6_is_meant_by_icmp() {
    let setup =
        Setup::with_policy(r#"{egress: [{to: [{cidr: "2001:db8:18::/64"}], ports: [{protocol: ICMP}]}]}"#);
    let got =
        setup.pod.connect(&["icmp://[2001:db8:18::7]", "tcp://[2001:db8:18::7]:80", "icmp://198.18.0.7"]);
    assert_eq!(got, ["ok", "denied", "denied"]);
}

#[test]
fn a_change_of_policy_is_felt_by_live_connections_and_only_by_those_it_means() {
    let mut setup = Setup::with_policy("{egress: [{to: [{cidr: 198.18.0.0/15}]}]}");
    let kept = setup.pod.hold("tcp://198.18.1.1:80");
    let cut = setup.pod.hold("tcp://198.18.2.1:80");
    std::thread::sleep(Duration::from_millis(300));
    setup.enforce("{egress: [{to: [{cidr: 198.18.1.0/24}]}]}");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(kept.end()["outcome"], "ok");
    assert_eq!(cut.end()["outcome"], "timeout");
}

#[test]
fn what_is_allowed_is_counted_once() {
    let setup = Setup::with_policy("{egress: [{to: [{cidr: 198.18.1.0/24}, {cidr: '2001:db8:18:5::/64'}]}]}");
    let allowed = || setup.kernel.counters().expect("the counters")[Counter::Allowed as usize];
    let before = allowed();
    let targets = ["tcp://198.18.1.1:80", "tcp://[2001:db8:18:5::1]:80", "udp://198.18.1.1:123"];
    assert_eq!(setup.pod.connect(&targets), ["ok", "ok", "ok"]);
    assert_eq!(allowed() - before, 3);
}
