//! Connections that come in.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use l7egg_ebpf_common::abi::{DOUBTED, Direction, OF_NO_POLICY, SubjectState, WAS_FREE};
use l7egg_node_agent::datapath::Datapath;

use crate::harness::{POD4, POD6, Said, Setup, cgroup2_root, policy, unique};

#[test]
fn replies_pass_though_nothing_may_leave() {
    let setup = Setup::with_policy("{egress: []}");
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
    ]);
    assert_eq!(got, ["ok", "ok", "ok", "ok", "ok", "ok", "refused", "refused"]);
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "udp://198.18.0.80:123"]), ["denied", "denied"]);
}

#[test]
fn connections_that_were_open_before_the_first_policy_live_on_if_they_came_in() {
    let mut setup = Setup::new();
    let _server = setup.pod.serve(8080, 8080);
    let inbound = setup.pod.world_hold(&format!("tcp://{POD4}:8080"));
    let inbound6 = setup.pod.world_hold(&format!("tcp://[{POD6}]:8080"));
    let outbound = ["198.18.0.80", "[2001:db8:18::80]"].map(|to| setup.pod.hold(&format!("tcp://{to}:80")));
    std::thread::sleep(Duration::from_millis(300));
    setup.enforce("{egress: []}");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(inbound.end()["outcome"], "ok");
    assert_eq!(inbound6.end()["outcome"], "ok");
    for outbound in outbound {
        assert_eq!(outbound.end()["outcome"], "timeout");
    }
}

#[test]
fn loopback_and_the_pods_own_addresses_are_free() {
    let setup = Setup::with_policy("{egress: []}");
    let _server = setup.pod.serve(8080, 8080);
    let got = setup.pod.connect(&[
        "tcp://127.0.0.1:8080",
        "tcp://[::1]:8080",
        &format!("tcp://{POD4}:8080"),
        &format!("tcp://[{POD6}]:8080"),
        &format!("udp://{POD4}:8080"),
        &format!("udp://[{POD6}]:8080"),
    ]);
    assert_eq!(got, ["ok", "ok", "ok", "ok", "ok", "ok"]);
}

/// Asks a server that answers late, and goes on when it is told to.
const ASK_LATE: &str = "
import socket, sys
to = (sys.argv[1], 777)
s = socket.socket(socket.AF_INET6 if ':' in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 0))
s.settimeout(60)
s.sendto(b'?', to)
print('asked', flush=True)
print(s.recvfrom(10)[0].decode(), flush=True)
for _ in range(3):
    try:
        s.sendto(b'!', to)
        print('sent', flush=True)
    except PermissionError:
        print('denied', flush=True)
";
const ANSWER_LATE: &str = "
import socket, sys
own = sys.argv[1]
s = socket.socket(socket.AF_INET6 if ':' in own else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((own, 777))
print('ready', flush=True)
peer = s.recvfrom(10)[1]
sys.stdin.readline()
s.sendto(b'late', peer)
sys.stdin.readline()
";

/// What was asked while all was free is answered after `enforce`, and opens nothing then.
fn answered_late(container: Option<&str>, enforce: impl Fn(&mut Setup)) {
    for (address, own) in [("198.18.0.80", POD4.to_owned()), ("fd77::1", format!("[{POD6}]"))] {
        answered_late_from(address, &own, container, &enforce);
    }
}

fn answered_late_from(address: &str, own: &str, container: Option<&str>, enforce: impl Fn(&mut Setup)) {
    let mut setup = Setup::new();
    let mut server = setup.pod.in_world("python3".as_ref());
    let server = server.args(["-c", ANSWER_LATE, address]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = server.spawn().expect("python3");
    let mut answering = BufReader::new(server.stdout.take().expect("its output")).lines();
    assert_eq!(answering.next().expect("a line").expect("text"), "ready");
    if let Some(container) = container {
        setup.pod.enter(container);
    }
    let mut client = setup.pod.command("python3".as_ref(), &["-c", ASK_LATE, address]);
    let mut client = client.stdout(Stdio::piped()).spawn().expect("python3");
    let mut said = BufReader::new(client.stdout.take().expect("its output")).lines();
    let mut says = || said.next().expect("a line").expect("text");
    assert_eq!(says(), "asked");

    enforce(&mut setup);
    setup.kernel.collect().expect("to collect");
    let mut tell = server.stdin.take().expect("its input");
    tell.write_all(b"\n").expect("to tell it");
    assert_eq!(says(), "late", "{address}");
    assert_eq!([says(), says(), says()], ["denied"; 3], "{address}");

    // What others open has its replies all the same.
    let _server = setup.pod.serve(8080, 8080);
    assert_eq!(setup.pod.world_connect(&[&format!("udp://{own}:8080")]), ["ok"]);
    client.wait().expect("python3");
    drop(tell);
    server.wait().expect("python3");
}

const NOTHING: &str = "{egress: []}";

#[test]
fn an_answer_that_comes_long_after_the_first_policy_opens_nothing() {
    answered_late(None, |setup| {
        setup.enforce(NOTHING);
        setup.settle(NOTHING);
    });
}

#[test]
fn an_answer_that_comes_long_after_a_running_pod_was_held_opens_nothing() {
    answered_late(None, |setup| {
        setup.hold();
        setup.enforce(NOTHING);
        setup.settle(NOTHING);
    });
}

#[test]
fn an_answer_that_comes_long_after_a_pod_was_divided_opens_nothing() {
    answered_late(Some("app"), |setup| {
        setup.divide(&[("app", Some(NOTHING))]);
        setup.settle_container("app", NOTHING);
    });
}

#[test]
fn an_answer_that_comes_long_after_a_container_was_free_opens_nothing() {
    answered_late(Some("app"), |setup| {
        setup.divide(&[("app", None), ("other", Some(NOTHING))]);
        setup.divide(&[("app", Some(NOTHING)), ("other", Some(NOTHING))]);
        setup.settle_container("app", NOTHING);
    });
}

#[test]
fn an_answer_that_comes_long_after_a_pod_was_divided_no_more_opens_nothing() {
    answered_late(Some("app"), |setup| {
        setup.divide(&[("app", None), ("other", Some(NOTHING))]);
        setup.enforce(NOTHING);
        setup.settle(NOTHING);
    });
}

#[test]
fn only_who_may_have_sent_something_is_taken_for_one_that_was_free() {
    // It has a sandbox, unlike others here.
    let mut setup = Setup::on_node(NOTHING);
    let empty = cgroup2_root().join(format!("l7k-inbound-{}", unique()));
    std::fs::create_dir(&empty).expect("a cgroup");
    setup.kernel.enforce("empty", &empty, &policy(NOTHING)).expect("to enforce");
    let map = MapData::from_pin(setup.pins("maps/SUBJECTS")).expect("the pin");
    let states: Array<MapData, SubjectState> =
        Array::try_from(Map::from_map_data(map).expect("the map")).expect("an array");
    let was_free = |subject: u32| states.get(&subject, 0).expect("its state").flags & WAS_FREE != 0;
    let enforced = setup.kernel.enforced().expect("what is enforced");
    let empties = enforced.iter().find(|pod| pod.uid == "empty").expect("it is enforced").subject;
    assert_eq!((was_free(setup.subject()), was_free(empties)), (true, false));
    std::fs::remove_dir(&empty).expect("to remove it");
}

#[test]
fn answers_to_what_was_sent_before_the_first_policy_open_nothing() {
    // Asks all the while, so that some answer arrives between the attaching of one program and of the next.
    const ASK: &str = "
import select, socket, sys
to = (sys.argv[1], 123)
s = socket.socket(socket.AF_INET6 if ':' in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 0))
s.settimeout(0.001)
sent = denied = 0
print('asking', flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        s.sendto(b'?', to)
        s.recv(10)
    except PermissionError:
        pass
    except TimeoutError:
        pass
for _ in range(20):
    try:
        s.sendto(b'?', to)
        sent += 1
        s.recv(10)
    except PermissionError:
        denied += 1
    except TimeoutError:
        pass
print(sent, denied, flush=True)
";
    let addresses = ["198.18.0.80", "2001:db8:18::80"].into_iter().cycle();
    for address in addresses.take(8) {
        let mut setup = Setup::new();
        let mut command = setup.pod.command("python3".as_ref(), &["-c", ASK, address]);
        let mut asking = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let mut said = BufReader::new(asking.stdout.take().expect("its output")).lines();
        assert_eq!(said.next().expect("a line").expect("text"), "asking");
        std::thread::sleep(Duration::from_millis(50));
        setup.enforce("{egress: []}");
        setup.settle("{egress: []}");
        std::thread::sleep(Duration::from_millis(50));
        drop(asking.stdin.take());
        assert_eq!(said.next().expect("a line").expect("text"), "0 20", "{address}");
        asking.wait().expect("python3");
    }
}

/// Connected, asks what is answered late, and is told to go on twice.
const ASK_CONNECTED: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('198.18.0.80', 777))
s.send(b'?')
print('asked', flush=True)
sys.stdin.readline()
";

#[test]
fn what_a_connected_socket_has_opened_before_the_first_policy_is_known_and_no_guess() {
    let mut setup = Setup::new();
    let mut command = setup.pod.in_world("python3".as_ref());
    command.args(["-c", ANSWER_LATE, "198.18.0.80"]);
    let mut server = Said::start(command);
    assert_eq!(server.next(), "ready");
    let mut client = Said::start(setup.pod.command("python3".as_ref(), &["-c", ASK_CONNECTED]));
    assert_eq!(client.next(), "asked");
    // The answer comes when the programs are attached, and before sockets are looked at.
    setup.enforce(NOTHING);
    server.go_on();
    let to_server = |setup: &Setup| {
        let flows = setup.flows();
        let found = flows.iter().flatten().find(|(key, _)| key.remote_port == 777);
        found.map(|(_, flow)| (flow.direction, flow.policy))
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while to_server(&setup).is_none() {
        assert!(Instant::now() < deadline, "the answer does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(to_server(&setup), Some((Direction::Egress as u32, DOUBTED)));
    setup.settle(NOTHING);
    // As long as anything comes it stays the pod's own.
    assert_eq!(to_server(&setup), Some((Direction::Egress as u32, OF_NO_POLICY)));
    client.go_on();
}
