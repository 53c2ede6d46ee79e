//! A change of policy and the connections that are open: those that are not allowed any more end at once, on both
//! sides, and the others never notice.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{POD4, Setup, is_without_a_pause};

/// Takes connections on three ports: one says nothing, one only sends, one only receives. Prints how each ends.
const SERVER: &str = "
import json, socket, sys, threading
def say(**what):
    sys.stdout.write(json.dumps(what) + '\\n')
    sys.stdout.flush()
def end(port, work):
    listener = socket.create_server(('10.77.0.1', port))
    say(listening=port)
    peer, _ = listener.accept()
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
    peer = socket.create_connection(('10.77.0.1', port))
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

#[test]
fn both_ends_notice_at_once_whatever_they_are_doing() {
    let before = "{egress: [{to: [{cidr: 10.77.0.0/24}, {cidr: 198.18.0.0/15}]}]}";
    let after = "{egress: [{to: [{cidr: 198.18.0.0/15}]}]}";
    let mut setup = Setup::with_policy(before);
    setup.settle(before);
    let mut command = setup.pod.in_world("python3".as_ref());
    command.args(["-c", SERVER]);
    let mut server = Program::start(command);
    server.three();
    let mut client = Program::start(setup.pod.command("python3".as_ref(), &["-c", CLIENT]));
    client.three();
    let kept = setup.pod.hold("tcp://198.18.1.1:80");
    let kept6 = setup.pod.hold("tcp4://n1.fresh.test:80");
    std::thread::sleep(Duration::from_millis(300));

    assert_eq!(setup.settle(before), 0);
    let start = Instant::now();
    setup.enforce(after);
    assert_eq!(setup.settle(after), 3);
    assert_eq!(errors(&client.three()), ["ConnectionAbortedError"; 3]);
    assert_eq!(errors(&server.three()), ["ConnectionResetError"; 3]);
    println!("both ends of three connections noticed after {:?}", start.elapsed());
    std::thread::sleep(Duration::from_millis(1000));
    for kept in [kept.end(), kept6.end()] {
        assert_eq!(kept["outcome"], "ok");
        assert!(is_without_a_pause(&kept), "{kept}");
    }
}

#[test]
fn a_connection_by_name_outlives_its_ttl_and_ends_with_its_rule() {
    let by_name = "{egress: [{to: [{domainNames: [n1.short.test]}]}]}";
    let and_more = "{egress: [{to: [{domainNames: ['*.short.test']}, {cidr: 192.0.2.0/24}]}]}";
    let gone = "{egress: [{to: [{domainNames: [n2.short.test]}]}]}";
    let mut setup = Setup::new();
    setup.pod.set_names("n1.short.test. 1 IN A 198.18.60.1\n");
    setup.enforce(by_name);
    let kept = setup.pod.hold("tcp4://n1.short.test:80");
    let cut = setup.pod.hold("tcp4://n1.short.test:80");
    // Longer than the shortest time that an answer is believed.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(setup.pod.connect_one("tcp://198.18.60.1:80"), "denied");
    setup.enforce(and_more);
    assert_eq!(setup.settle(and_more), 0);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(kept.end()["outcome"], "ok");
    // Until it is closed on both sides it would be reset too.
    let deadline = Instant::now() + Duration::from_secs(30);
    while setup.pod.connections_to("198.18.60.1") > 1 {
        assert!(Instant::now() < deadline, "it is not closed");
        std::thread::sleep(Duration::from_millis(20));
    }
    setup.enforce(gone);
    assert_eq!(setup.settle(gone), 1);
    assert_ne!(cut.end()["outcome"], "ok");
}

#[test]
fn a_connection_that_is_being_opened_ends_too() {
    // Nobody answers there, and nobody says so: its SYN is repeated. Told once it is sent.
    const CONNECT: &str = "
import errno, select, socket
s = socket.socket()
s.setblocking(False)
s.connect_ex(('10.77.0.99', 80))
print('connecting', flush=True)
ended = select.poll()
ended.register(s, select.POLLOUT)
ended.poll(60_000)
print(errno.errorcode.get(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 'nothing'))
";
    let before = "{egress: [{to: [{cidr: 10.77.0.0/24}]}]}";
    let mut setup = Setup::with_policy(before);
    // Else the kernel has it fail after the three seconds in which it looks for who has the address.
    let neighbour = ["neigh", "add", "10.77.0.99", "lladdr", "02:00:00:00:00:99", "dev", "eth0"];
    assert!(setup.pod.command("ip".as_ref(), &neighbour).status().expect("iproute2").success());
    let mut child = setup
        .pod
        .command("python3".as_ref(), &["-c", CONNECT])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert_eq!(lines.next().expect("a line").expect("a line"), "connecting");
    setup.enforce("{egress: []}");
    assert_eq!(setup.settle("{egress: []}"), 1);
    assert_eq!(lines.next().expect("a line").expect("a line"), "ECONNABORTED");
    let _ = child.wait();
}

#[test]
fn connections_from_before_the_first_policy_are_told_apart() {
    let policy = "{egress: [{to: [{cidr: 198.18.1.0/24}]}]}";
    let mut setup = Setup::new();
    let _server = setup.pod.serve(8080, 8080);
    let inbound = setup.pod.world_hold(&format!("tcp://{POD4}:8080"));
    let allowed = setup.pod.hold("tcp://198.18.1.1:80");
    let denied = setup.pod.hold("tcp://198.18.2.1:80");
    std::thread::sleep(Duration::from_millis(300));
    setup.enforce(policy);
    assert_eq!(setup.settle(policy), 1);
    std::thread::sleep(Duration::from_millis(500));
    // A later policy does not take them for others.
    setup.enforce("{egress: []}");
    assert_eq!(setup.settle("{egress: []}"), 1);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(inbound.end()["outcome"], "ok");
    assert_ne!(allowed.end()["outcome"], "ok");
    assert_ne!(denied.end()["outcome"], "ok");
}

#[test]
fn datagram_sockets_from_before_stay_the_pods_own() {
    // Answers come all the time, also before the programs have judged anything that was sent.
    const TALK: &str = "
import select, socket, sys, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(('198.18.2.1', 123))
udp.settimeout(1)
print('connected', flush=True)
end = False
while not end:
    # Once more after it was told to stop.
    end = bool(select.select([sys.stdin], [], [], 0)[0])
    try:
        udp.send(b'x')
        udp.recv(100)
        last = 'ok'
    except PermissionError:
        last = 'denied'
    except TimeoutError:
        last = 'timeout'
    time.sleep(0.001)
print(last)
";
    let mut setup = Setup::new();
    let mut command = setup.pod.command("python3".as_ref(), &["-c", TALK]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert_eq!(lines.next().expect("a line").expect("a line"), "connected");
    std::thread::sleep(Duration::from_millis(300));
    setup.enforce("{egress: []}");
    setup.settle("{egress: []}");
    drop(child.stdin.take());
    assert_eq!(lines.next().expect("a line").expect("a line"), "denied");
    let _ = child.wait();
}

#[test]
fn a_repaired_socket_does_not_pass_for_an_accepted_one() {
    // TCP_REPAIR (tcp(7)) makes a connection without a handshake, from the port of a listener. If its segment
    // leaves, the server, which knows nothing of it, resets it.
    const REPAIR: &str = "
import socket
TCP_REPAIR = 19
def reused():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return s
listener = reused()
listener.bind(('0.0.0.0', 80))
listener.listen()
forged = reused()
forged.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
forged.bind(('10.77.0.2', 80))
forged.connect(('198.18.0.80', 80))
forged.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
forged.settimeout(1)
try:
    forged.send(b'secret')
    forged.recv(1)
    print('answered')
except TimeoutError:
    print('timeout')
except ConnectionResetError:
    print('escaped')
except OSError as e:
    print(type(e).__name__)
";
    let mut setup = Setup::with_policy("{egress: []}");
    setup.settle("{egress: []}");
    let output = setup.pod.command("python3".as_ref(), &["-c", REPAIR]).output().expect("python3");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "timeout", "{output:?}");
}
