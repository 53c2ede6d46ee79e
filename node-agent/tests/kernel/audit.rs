//! Mode Audit: nothing is denied, and what would be is recorded, once and with its process.

use std::time::Duration;

use l7egg_ebpf_common::abi::{Counter, Event, EventKind, protocol};
use l7egg_node_agent::datapath::{Datapath, EventSource};

use crate::harness::{Setup, policy, together};

const AUDIT: &str = "{mode: Audit, egress: [{to: [{domainNames: [n1.fresh.test]}, {cidr: 198.18.1.0/24}]}]}";

/// What would have been denied since the last call.
fn audited(events: &mut dyn EventSource) -> Vec<Event> {
    let all = std::iter::from_fn(|| events.next());
    // Connections of the harness are still being closed.
    all.filter(|event| event.kind == EventKind::AuditDenied as u32 && event.remote_port != 9000).collect()
}

#[test]
fn nothing_is_denied_and_everything_is_recorded_once() {
    let mut setup = Setup::with_policy(AUDIT);
    let mut events = setup.kernel.events().expect("the ring buffer");
    let allowed = ["tcp4://n1.fresh.test:80", "tcp://198.18.1.1:80", "udp://198.18.1.1:123"];
    assert_eq!(setup.pod.connect(&allowed), ["ok", "ok", "ok"]);
    assert_eq!(audited(&mut *events), []);

    assert_eq!(setup.pod.connect_one("tcp4://n2.fresh.test:80"), "ok");
    let seen = audited(&mut *events);
    assert_eq!(seen.len(), 1, "a connect and its packets are one: {seen:?}");
    assert_eq!((seen[0].remote_port, seen[0].protocol), (80, protocol::TCP));
    assert_eq!(&seen[0].comm[..5], b"probe");
    assert_ne!(seen[0].process, 0);
    // The name is not one of a rule, so nothing was learned by it.
    assert_eq!(events.names(seen[0].subject, seen[0].remote), []);

    assert_eq!(setup.pod.connect_one("tcp://[2001:db8:18::80]:80"), "ok");
    assert_eq!(audited(&mut *events).len(), 1);
    // A connected datagram socket is judged by its packets, which do not say whose they are.
    assert_eq!(setup.pod.connect_one("udp://198.18.2.1:123"), "ok");
    let seen = audited(&mut *events);
    assert_eq!((seen.len(), seen[0].process), (1, 0));
    assert_eq!(setup.pod.connect_one("icmp://198.18.2.1"), "ok");
    assert_eq!(audited(&mut *events).len(), 1);
    assert_eq!(setup.kernel.counters().expect("the counters")[Counter::Denied as usize], 0);
}

#[test]
fn a_datagram_without_a_connection_is_recorded_once_with_its_process() {
    const SEND: &str = "
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(3):
    udp.sendto(b'x', ('198.18.2.1', 123))
";
    let mut setup = Setup::with_policy(AUDIT);
    let mut events = setup.kernel.events().expect("the ring buffer");
    assert!(setup.pod.command("python3".as_ref(), &["-c", SEND]).status().expect("python3").success());
    let seen = audited(&mut *events);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(&seen[0].comm[..7], b"python3");
}

#[test]
fn beside_eggs_that_are_enforced_it_neither_opens_nor_denies() {
    let mut setup = Setup::new();
    let enforced = "{egress: [{to: [{cidr: 198.18.1.0/24}, {cidr: 198.18.2.0/24}]}]}";
    let audit =
        "{mode: Audit, egress: [{to: [{cidr: 198.18.3.0/24}]}, {action: Deny, to: [{cidr: 198.18.2.0/24}]}]}";
    let both = together(&[enforced, audit]);
    setup.kernel.enforce(setup.pod.uid(), setup.pod.cgroup(), &both).expect("in force");
    let mut events = setup.kernel.events().expect("the ring buffer");
    assert_eq!(setup.pod.connect_one("tcp://198.18.1.1:80"), "ok");
    assert_eq!(audited(&mut *events), []);
    assert_eq!(setup.pod.connect_one("tcp://198.18.2.1:80"), "ok");
    assert_eq!(audited(&mut *events).len(), 1, "it would deny this");
    assert_eq!(setup.pod.connect(&["tcp://198.18.3.1:80", "udp://198.18.3.1:123"]), ["denied", "denied"]);
    assert_eq!(audited(&mut *events), [], "denied by what is enforced");
}

#[test]
fn a_change_to_enforce_is_a_change_of_policy() {
    let mut setup = Setup::with_policy(AUDIT);
    let kept = setup.pod.hold("tcp://198.18.1.1:80");
    let cut = setup.pod.hold("tcp://198.18.2.1:80");
    assert_ne!(policy(AUDIT).digest, policy(&AUDIT.replace("Audit", "Enforce")).digest);
    setup.enforce(&AUDIT.replace("Audit", "Enforce"));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(kept.end()["outcome"], "ok");
    assert_ne!(cut.end()["outcome"], "ok");
}

#[test]
fn what_cannot_be_read_passes_and_is_counted() {
    // A later fragment, sent through a raw socket.
    const FRAGMENT: &str = "
import socket, struct
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
header = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 28, 1, 0x2001, 64, 17, 0, b'\\0' * 4, socket.inet_aton('198.18.2.1'))
try:
    raw.sendto(header + b'x' * 8, ('198.18.2.1', 0))
    print('sent')
except PermissionError:
    print('denied')
";
    let send = |setup: &Setup| {
        let output = setup.pod.command("python3".as_ref(), &["-c", FRAGMENT]).output().expect("python3");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let mut setup = Setup::with_policy(AUDIT);
    assert_eq!(send(&setup), "sent");
    // Connections of the harness that are still being closed are counted, too.
    assert!(setup.kernel.counters().expect("the counters")[Counter::AuditDenied as usize] >= 1);
    setup.enforce(&AUDIT.replace("Audit", "Enforce"));
    assert_eq!(send(&setup), "denied");
}
