//! Connections that are not allowed any more end at once, on both sides, whatever those are doing; and the others never
//! notice. With the backstop as well, by which the reset has to get out.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Link, Setup, is_without_a_pause};

/// Takes connections at an address on three ports: one says nothing, one only sends, one only receives. Prints how each ends.
const SERVER: &str = "
import json, socket, sys, threading
def say(**what):
    sys.stdout.write(json.dumps(what) + '\\n')
    sys.stdout.flush()
def end(port, work):
    address = sys.argv[1]
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family)
    say(listening=port)
    peer, _ = listener.accept()
    peer.settimeout(20)
    try:
        while work(peer): pass
        error = 'closed'
    except OSError as e:
        error = type(e).__name__
    say(port=port, error=error)
receive = lambda peer: peer.recv(65536)
send = lambda peer: peer.send(b'x' * 4096)
for port, work in ((7001, receive), (7002, send), (7003, receive)):
    threading.Thread(target=end, args=(port, work)).start()
";

/// Connects to each port, and prints what ended the connection: idle, receiving, sending.
const CLIENT: &str = "
import json, socket, sys, threading
def say(**what):
    sys.stdout.write(json.dumps(what) + '\\n')
    sys.stdout.flush()
def end(port, work):
    peer = socket.create_connection((sys.argv[1], port))
    say(connected=port)
    try:
        while work(peer): pass
        error = 'closed'
    except OSError as e:
        error = type(e).__name__
    say(port=port, error=error)
receive = lambda peer: peer.recv(65536)
send = lambda peer: peer.send(b'x' * 4096)
for port, work in ((7001, receive), (7002, receive), (7003, send)):
    threading.Thread(target=end, args=(port, work)).start()
";

/// A program that prints lines of JSON.
struct Program {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python3");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, lines }
    }

    /// The next three lines, by port.
    fn three(&mut self) -> Vec<Value> {
        let mut three: Vec<Value> = (0..3)
            .map(|_| {
                serde_json::from_str(&self.lines.next().expect("a line").expect("a line")).expect("JSON")
            })
            .collect();
        three.sort_by_key(|line| line["port"].as_u64());
        three
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn errors(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["error"].as_str().expect("an error")).collect()
}

/// Longest that it may take, also where the processor is emulated.
const AT_ONCE: Duration = Duration::from_secs(10);

const BEFORE: &str = r#"{egress: [{to: [{cidr: 10.77.0.0/24}, {cidr: "fd77::/64"}, {cidr: 198.18.0.0/15}, {cidr: "2001:db8:18::/48"}]}]}"#;
const AFTER: &str = r#"{egress: [{to: [{cidr: 198.18.0.0/15}, {cidr: "2001:db8:18::/48"}]}]}"#;

fn both_ends_notice(link: Link, address: &str) {
    let mut setup = Setup::with_link(link);
    setup.enforce(BEFORE);
    setup.settle(BEFORE);
    let mut command = setup.pod.in_world("python3".as_ref());
    command.args(["-c", SERVER, address]);
    let mut server = Program::start(command);
    server.three();
    let mut client = Program::start(setup.pod.command("python3".as_ref(), &["-c", CLIENT, address]));
    client.three();
    let kept = ["tcp://198.18.1.1:80", "tcp4://n1.fresh.test:80", "tcp6://n1.fresh.test:80"];
    let kept = kept.map(|target| setup.pod.hold(target));
    std::thread::sleep(Duration::from_millis(300));

    assert_eq!(setup.settle(BEFORE), 0);
    let start = Instant::now();
    setup.enforce(AFTER);
    assert_eq!(setup.settle(AFTER), 3);
    assert_eq!(errors(&client.three()), ["ConnectionAbortedError"; 3]);
    assert_eq!(errors(&server.three()), ["ConnectionResetError"; 3]);
    let took = start.elapsed();
    println!("both ends of three connections to {address} noticed after {took:?}");
    assert!(took < AT_ONCE, "{took:?}");
    std::thread::sleep(Duration::from_millis(1000));
    for kept in kept.map(|kept| kept.end()) {
        assert_eq!(kept["outcome"], "ok");
        assert!(is_without_a_pause(&kept), "{kept}");
    }
}

#[test]
fn both_ends_notice_at_once_over_ipv4() {
    both_ends_notice(Link::Direct, "10.77.0.1");
}

#[test]
fn both_ends_notice_at_once_over_ipv6() {
    both_ends_notice(Link::Direct, "fd77::1");
}

#[test]
fn both_ends_notice_at_once_over_ipv4_behind_the_backstop() {
    both_ends_notice(Link::ByNode, "10.77.0.1");
}

#[test]
fn both_ends_notice_at_once_over_ipv6_behind_the_backstop() {
    both_ends_notice(Link::ByNode, "fd77::1");
}
