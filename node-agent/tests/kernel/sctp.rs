//! SCTP, where the kernel has it.

use std::process::Command;

use crate::harness::{Link, POD4, POD6, Said, Setup, seconds};

/// Echoes at an address and a port.
const SERVE: &str = "
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
s.bind((address, port))
s.listen()
print('listening', flush=True)
while True:
    peer, _ = s.accept()
    peer.settimeout(5)
    try:
        peer.send(peer.recv(100))
        peer.recv(100)
    except OSError:
        pass
    peer.close()
";

/// Says what becomes of a message to an address and a port.
const CONNECT: &str = "
import socket, sys
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
s.settimeout(seconds)
try:
    s.connect((address, port))
    s.send(b'x')
    print('ok' if s.recv(100) == b'x' else 'closed')
except OSError as e:
    print(type(e).__name__)
";

fn serve(mut command: Command, address: &str, port: u16) -> Said {
    command.args(["-c", SERVE, address, &port.to_string()]);
    let mut server = Said::start(command);
    assert_eq!(server.next(), "listening");
    server
}

/// What came of it. A denied packet of SCTP is lost, and its sender goes on trying.
fn connect(mut command: Command, address: &str, port: u16, seconds: u32) -> String {
    command.args(["-c", CONNECT, address, &port.to_string(), &seconds.to_string()]);
    let output = command.output().expect("python3");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Whether the kernel has it; said, if not.
fn is_lacking() -> bool {
    let script =
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()";
    let output = Command::new("python3").args(["-c", script]).output().expect("python3");
    if !output.status.success() {
        println!("skipped: this kernel has no SCTP (module sctp)");
    }
    !output.status.success()
}

const WORLD: [&str; 2] = ["10.77.0.1", "fd77::1"];

/// A server for each port and family in the world.
fn world(setup: &Setup, ports: &[u16]) -> Vec<Said> {
    let all = WORLD.iter().flat_map(|address| ports.iter().map(move |port| (address, *port)));
    all.map(|(address, port)| serve(setup.pod.in_world("python3".as_ref()), address, port)).collect()
}

fn out(setup: &Setup, port: u16) -> [String; 2] {
    WORLD.map(|address| connect(setup.pod.command("python3".as_ref(), &[]), address, port, seconds(3)))
}

/// The same where nothing is to come of it, however long it takes.
fn out_in_vain(setup: &Setup, port: u16) -> [String; 2] {
    WORLD.map(|address| connect(setup.pod.command("python3".as_ref(), &[]), address, port, 3))
}

const ALLOWED: &str = r#"{egress: [{to: [{cidr: 10.77.0.1/32}, {cidr: "fd77::1/128"}], ports: [{protocol: SCTP, port: 7001}]}]}"#;

fn what_a_rule_allows_passes(link: Link) {
    if is_lacking() {
        return;
    }
    let mut setup = Setup::with_link(link);
    let _servers = world(&setup, &[7001, 7002]);
    assert_eq!([out(&setup, 7001), out(&setup, 7002)].concat(), ["ok"; 4], "without a policy");
    setup.enforce(ALLOWED);
    setup.settle(ALLOWED);
    assert_eq!(out(&setup, 7001), ["ok"; 2]);
    assert_eq!(out_in_vain(&setup, 7002), ["TimeoutError"; 2]);
    setup.enforce("{egress: []}");
    assert_eq!(out_in_vain(&setup, 7001), ["TimeoutError"; 2], "not allowed any more");
}

fn replies_pass(link: Link) {
    if is_lacking() {
        return;
    }
    let mut setup = Setup::with_link(link);
    setup.enforce("{egress: []}");
    let _servers = [POD4, POD6].map(|own| serve(setup.pod.command("python3".as_ref(), &[]), own, 7001));
    for own in [POD4, POD6] {
        let outcome = connect(setup.pod.in_world("python3".as_ref()), own, 7001, seconds(3));
        assert_eq!(outcome, "ok", "{own}");
    }
}

#[test]
fn what_a_rule_allows_passes_and_nothing_else() {
    what_a_rule_allows_passes(Link::Direct);
}

#[test]
fn what_a_rule_allows_passes_the_backstop_and_nothing_else() {
    what_a_rule_allows_passes(Link::ByNode);
}

#[test]
fn replies_pass_though_nothing_may_leave() {
    replies_pass(Link::Direct);
}

#[test]
fn replies_pass_the_backstop_though_nothing_may_leave() {
    replies_pass(Link::ByNode);
}
