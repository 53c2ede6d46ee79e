//! A change of policy and the connections that are open: which end, and which live on. How they end is in `both_ends`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{POD4, POD6, Setup, seconds};

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
fn a_connection_that_two_names_allowed_lives_as_long_as_one_does() {
    let of = |names: &str| {
        format!("{{dns: {{minTTL: 0s, ttlGrace: 0s}}, egress: [{{to: [{{domainNames: [{names}]}}]}}]}}")
    };
    let mut setup = Setup::new();
    let ttl_s = seconds(4);
    let zone =
        format!("one.short.test. {ttl_s} IN A 198.18.60.2\ntwo.short.test. {ttl_s} IN A 198.18.60.2\n");
    setup.pod.set_names(&zone);
    setup.enforce(&of("one.short.test, two.short.test"));
    for name in ["one.short.test", "two.short.test"] {
        setup.pod.dig(&[name]);
    }
    let kept = setup.pod.hold("tcp://198.18.60.2:80");
    let cut = setup.pod.hold("tcp://198.18.60.2:80");
    std::thread::sleep(Duration::from_millis(u64::from(ttl_s) * 1000 + 500));
    assert_eq!(setup.pod.connect_one("tcp://198.18.60.2:80"), "denied", "neither is believed any more");
    // It keeps one of them: whichever it is, the other goes on to allow it.
    for names in ["one.short.test", "two.short.test", "one.short.test"] {
        setup.enforce(&of(names));
        assert_eq!(setup.settle(&of(names)), 0, "{names}");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(kept.end()["outcome"], "ok");
    let deadline = Instant::now() + Duration::from_secs(30);
    while setup.pod.connections_to("198.18.60.2") > 1 {
        assert!(Instant::now() < deadline, "it is not closed");
        std::thread::sleep(Duration::from_millis(20));
    }
    setup.enforce(&of("three.short.test"));
    assert_eq!(setup.settle(&of("three.short.test")), 1);
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
    let policy = r#"{egress: [{to: [{cidr: 198.18.1.0/24}, {cidr: "2001:db8:18:7::/64"}]}]}"#;
    let mut setup = Setup::new();
    let _server = setup.pod.serve(8080, 8080);
    let inbound = [POD4, &format!("[{POD6}]")].map(|own| setup.pod.world_hold(&format!("tcp://{own}:8080")));
    let outbound = |targets: [&str; 2]| targets.map(|address| setup.pod.hold(&format!("tcp://{address}:80")));
    let allowed = outbound(["198.18.1.1", "[2001:db8:18:7::1]"]);
    let denied = outbound(["198.18.2.1", "[2001:db8:18:8::1]"]);
    std::thread::sleep(Duration::from_millis(300));
    setup.enforce(policy);
    assert_eq!(setup.settle(policy), 2);
    std::thread::sleep(Duration::from_millis(500));
    // A later policy does not take them for others.
    setup.enforce("{egress: []}");
    assert_eq!(setup.settle("{egress: []}"), 2);
    std::thread::sleep(Duration::from_millis(2500));
    for held in inbound {
        assert_eq!(held.end()["outcome"], "ok");
    }
    for held in allowed.into_iter().chain(denied) {
        assert_ne!(held.end()["outcome"], "ok");
    }
}

/// Talks to a server whose answers come all the time, also before the programs have judged anything that was sent.
const TALK: &str = "
import select, socket, sys, time
udp = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
udp.connect((sys.argv[1], 123))
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

#[test]
fn datagram_sockets_from_before_stay_the_pods_own() {
    for address in ["198.18.2.1", "2001:db8:18:8::1"] {
        let mut setup = Setup::new();
        let mut command = setup.pod.command("python3".as_ref(), &["-c", TALK, address]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        assert_eq!(lines.next().expect("a line").expect("a line"), "connected");
        std::thread::sleep(Duration::from_millis(300));
        setup.enforce("{egress: []}");
        setup.settle("{egress: []}");
        drop(child.stdin.take());
        assert_eq!(lines.next().expect("a line").expect("a line"), "denied", "{address}");
        let _ = child.wait();
    }
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
