//! UDP, by sockets that are connected and by sockets that are not.

use l7egg_ebpf_common::abi::EventKind;
use l7egg_node_agent::datapath::Datapath;
use serde_json::{Value, json};

use crate::harness::Setup;

/// Says what becomes of a datagram to each address given, by each way to send one.
const SEND: &str = "
import json, socket, sys
def tried(work):
    try:
        work()
        return 'sent'
    except PermissionError:
        return 'denied'
def connected(family, to):
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.connect(to)
    return [tried(lambda: udp.send(b'x')), udp.getpeername()[1]]
def addressed(family, to, flags=0):
    udp = socket.socket(family, socket.SOCK_DGRAM)
    return tried(lambda: udp.sendto(b'x', flags, to))
for address in sys.argv[2:]:
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    to = (address, int(sys.argv[1]))
    print(json.dumps({
        'sendto': addressed(family, to),
        'corked': addressed(family, to, socket.MSG_MORE),
        'connected': connected(family, to),
    }))
";

fn send(setup: &Setup, port: u16, addresses: &[&str]) -> Vec<Value> {
    let port = port.to_string();
    let arguments = [&["-c", SEND, port.as_str()], addresses].concat();
    let output = setup.pod.command("python3".as_ref(), &arguments).output().expect("python3");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

const ALLOWED: &str = r#"{egress: [{to: [{cidr: 198.18.1.0/24}, {cidr: "2001:db8:18:1::/64"}], ports: [{protocol: UDP, port: 123}]}]}"#;

#[test]
fn what_no_rule_allows_is_refused_before_a_packet_is_made() {
    let setup = Setup::with_policy(ALLOWED);
    let got = send(&setup, 123, &["198.18.2.1", "2001:db8:18:2::1", "::ffff:198.18.2.1"]);
    // A corked datagram has no packet yet. A connect says nothing: getaddrinfo makes it to sort addresses.
    let denied = json!({"sendto": "denied", "corked": "denied", "connected": ["denied", 123]});
    assert_eq!(got, [denied.clone(), denied.clone(), denied]);
}

#[test]
fn what_a_rule_allows_and_the_pods_own_dns_are_not() {
    let setup = Setup::with_policy(ALLOWED);
    let sent = |port: u16| json!({"sendto": "sent", "corked": "sent", "connected": ["sent", port]});
    let got = send(&setup, 123, &["198.18.1.1", "2001:db8:18:1::1", "::ffff:198.18.1.1"]);
    assert_eq!(got, [sent(123), sent(123), sent(123)]);
    assert_eq!(send(&setup, 53, &["198.18.0.53", "2001:db8:18::53"]), [sent(53), sent(53)]);
    assert_eq!(send(&setup, 7, &["127.0.0.1", "::1"]), [sent(7), sent(7)]);
}

#[test]
fn a_refusal_is_told_once() {
    let mut setup = Setup::with_policy(ALLOWED);
    let mut events = setup.kernel.events().expect("the ring buffer");
    // Connections of the harness are still being closed.
    let mut denied = || {
        let all = std::iter::from_fn(|| events.next());
        all.filter(|event| event.kind == EventKind::Denied as u32 && event.remote_port == 123).count()
    };
    assert_eq!(setup.pod.connect_one("udp://198.18.2.1:123"), "denied");
    assert_eq!(denied(), 1);
    send(&setup, 123, &["198.18.2.1"]);
    assert_eq!(denied(), 3, "one for each way to send");
}
