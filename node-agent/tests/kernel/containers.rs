//! Pods whose containers have policies of their own.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use l7egg_ebpf_common::abi::{ABI_VERSION, Container, LEVEL_SHIFT, Learned, LearnedKey, SubjectState};
use l7egg_node_agent::datapath::Datapath;

use crate::harness::{Link, POD4, Setup, is_without_a_pause};

const APP: &str = "{egress: [{to: [{domainNames: ['*.fresh.test']}, {cidr: 198.18.1.0/24}]}]}";
const OTHER: &str = "{egress: [{to: [{domainNames: ['*.fresh.test']}, {cidr: 198.18.2.0/24}]}]}";
const NOTHING: &str = "{egress: []}";

/// A divided pod, with the backstop.
fn divided(containers: &[(&str, Option<&str>)]) -> Setup {
    let mut setup = Setup::with_link(Link::ByNode);
    setup.divide(containers);
    setup
}

fn connect(setup: &Setup, container: &str, targets: &[&str]) -> Vec<String> {
    setup.pod.enter(container);
    setup.pod.connect(targets)
}

fn map(setup: &Setup, name: &str) -> Map {
    let pin = setup.bpffs().join(format!("l7egg/v{ABI_VERSION}/maps/{name}"));
    let data = MapData::from_pin(pin).expect("the pin");
    Map::from_map_data(data).expect("the map")
}

fn containers(setup: &Setup) -> usize {
    let map: HashMap<MapData, u64, Container> = map(setup, "CONTAINERS").try_into().expect("a hash map");
    map.keys().count()
}

/// Python in the pod, in the container that was entered last; what it printed.
fn python(setup: &Setup, script: &str) -> String {
    let output = setup.pod.command("python3".as_ref(), &["-c", script]).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn each_container_has_what_its_eggs_say() {
    let setup = divided(&[("app", Some(APP)), ("other", Some(OTHER)), ("free", None)]);
    let targets = [
        "tcp://198.18.1.1:80",
        "udp://198.18.1.1:123",
        "tcp://198.18.2.1:80",
        "udp://198.18.2.1:123",
        "icmp://198.18.1.1",
    ];
    assert_eq!(connect(&setup, "app", &targets), ["ok", "ok", "denied", "denied", "ok"]);
    assert_eq!(connect(&setup, "other", &targets), ["denied", "denied", "ok", "ok", "denied"]);
    assert_eq!(connect(&setup, "free", &targets), ["ok"; 5]);
    // What the agent has not named yet is held back, not refused.
    assert_eq!(connect(&setup, "new", &targets), ["timeout"; 5]);
    assert_eq!(connect(&setup, ".", &targets), ["timeout"; 5]);
}

#[test]
fn a_container_is_enforced_when_it_is_named_and_not_free_before() {
    let mut setup = divided(&[("app", Some(APP))]);
    assert_eq!(connect(&setup, "new", &["udp://198.18.9.1:123"]), ["timeout"]);
    setup.divide(&[("app", Some(APP)), ("new", None)]);
    assert_eq!(connect(&setup, "new", &["udp://198.18.9.1:123"]), ["ok"]);
    setup.divide(&[("app", Some(APP)), ("new", Some(OTHER))]);
    assert_eq!(connect(&setup, "new", &["udp://198.18.9.1:123", "udp://198.18.2.1:123"]), ["denied", "ok"]);
}

#[test]
fn what_one_container_learns_opens_nothing_for_another() {
    let setup = divided(&[("app", Some(APP)), ("other", Some(OTHER))]);
    setup.pod.enter("app");
    let address = setup.pod.dig(&["n7.fresh.test"]);
    let target = format!("tcp://{address}:80");
    assert_eq!(setup.pod.connect_one(&target), "ok");
    assert_eq!(connect(&setup, "other", &[&target]), ["denied"]);
    assert_eq!(connect(&setup, "other", &["tcp4://n7.fresh.test:80"]), ["ok"]);
    assert_eq!(connect(&setup, "other", &[&target]), ["ok"]);
}

#[test]
fn replies_and_loopback_pass_in_every_container() {
    let setup = divided(&[("app", Some(NOTHING)), ("free", None)]);
    for container in ["app", "free"] {
        setup.pod.enter(container);
        let server = setup.pod.serve(8080, 8080);
        let got = setup.pod.world_connect(&[
            &format!("tcp://{POD4}:8080"),
            &format!("udp://{POD4}:8080"),
            &format!("icmp://{POD4}"),
            &format!("tcp://{POD4}:8081"),
            &format!("udp://{POD4}:8081"),
        ]);
        // The last two by sockets of nobody.
        assert_eq!(got, ["ok", "ok", "ok", "refused", "refused"], "{container}");
        // Containers of a pod talk to each other.
        assert_eq!(
            connect(&setup, "app", &["tcp://127.0.0.1:8080", &format!("tcp://{POD4}:8080")]),
            ["ok", "ok"]
        );
        drop(server);
    }
    // So they do in one that the agent has not named yet.
    setup.pod.enter("new");
    let _server = setup.pod.serve(8080, 8080);
    assert_eq!(setup.pod.world_connect(&[&format!("tcp://{POD4}:8080")]), ["ok"]);
}

#[test]
fn cgroups_below_a_containers_are_the_container() {
    let setup = divided(&[("app", Some(APP)), ("free", None)]);
    assert_eq!(
        connect(&setup, "app/own/deeper", &["udp://198.18.1.1:123", "udp://198.18.2.1:123"]),
        ["ok", "denied"]
    );
    assert_eq!(connect(&setup, "free/own", &["udp://198.18.2.1:123"]), ["ok"]);
}

#[test]
fn containers_are_found_where_the_agent_does_not_see_the_root_of_the_tree() {
    let setup = divided(&[("app", Some(APP)), ("free", None)]);
    let mut states: Array<MapData, SubjectState> = map(&setup, "SUBJECTS").try_into().expect("an array");
    let pod = setup.kernel.enforced().expect("what is enforced")[0].subject;
    let state = states.get(&pod, 0).expect("its state");
    assert_ne!(state.flags >> LEVEL_SHIFT, 0);
    states
        .set(pod, SubjectState { flags: state.flags & ((1 << LEVEL_SHIFT) - 1), ..state }, 0)
        .expect("to write");
    let targets = ["udp://198.18.1.1:123", "udp://198.18.2.1:123", "tcp://198.18.2.1:80"];
    assert_eq!(connect(&setup, "app", &targets), ["ok", "denied", "denied"]);
    assert_eq!(connect(&setup, "app/own", &targets), ["ok", "denied", "denied"]);
    assert_eq!(connect(&setup, "free", &targets), ["ok", "ok", "ok"]);
    assert_eq!(connect(&setup, "new", &targets[..2]), ["timeout", "timeout"]);
}

#[test]
fn a_socket_stays_its_makers() {
    let setup = divided(&[("app", Some(APP)), ("free", None)]);
    let (app, free) = (setup.pod.container("app"), setup.pod.container("free"));
    let script = format!(
        "
import os, socket
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
open('{}/cgroup.procs', 'w').write(str(os.getpid()))
def send(s):
    try:
        s.sendto(b'x', ('198.18.2.1', 123))
        return 'sent'
    except PermissionError:
        return 'denied'
print(send(made), send(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
",
        free.display()
    );
    // Not by `ip netns exec`, which hides the cgroups.
    let output = Command::new("sh")
        .args(["-c", "echo $$ >\"$0\" && exec nsenter \"$@\""])
        .arg(app.join("cgroup.procs"))
        .arg(format!("--net=/run/netns/{}p", setup.pod.uid()))
        .args(["python3", "-c", &script])
        .output()
        .expect("python3");
    let moved = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(moved, "denied sent");
}

#[test]
fn frames_past_the_ip_layer_are_their_containers() {
    // A UDP datagram to port 9 of 198.18.1.1 or 198.18.2.1, straight to the interface. What arrives is counted there.
    let setup = divided(&[("app", Some(APP)), ("free", None)]);
    let send = |container: &str, address: &str| {
        setup.pod.enter(container);
        let listen = listener(&setup, address);
        python(
            &setup,
            &format!(
                "
import fcntl, socket, struct
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(('eth0', 0))
own = raw.getsockname()[4]
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
payload = b'straight'
udp = struct.pack('!HHHH', 4242, 4243, 8 + len(payload), 0) + payload
ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton('{POD4}'), socket.inet_aton('{address}'))
total = sum(struct.unpack('!10H', ip))
total = (total >> 16) + (total & 0xffff)
total = ~(total + (total >> 16)) & 0xffff
ip = ip[:10] + struct.pack('!H', total) + ip[12:]
for _ in range(5):
    raw.send(b'\\xff' * 6 + own + b'\\x08\\x00' + ip + udp)
"
            ),
        );
        listen()
    };
    assert!(send("app", "198.18.1.1"));
    assert!(!send("app", "198.18.2.1"));
    assert!(send("free", "198.18.2.1"));
    assert!(!send("new", "198.18.1.1"));
}

/// Listens in the world for frames to an address; whether some came is what the result says.
fn listener(setup: &Setup, address: &str) -> impl FnOnce() -> bool {
    let mut command: Command = setup.pod.in_world("python3".as_ref());
    command.args([
        "-c",
        "
import select, socket, sys, time
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
print('listening', flush=True)
# A second longer than the sender is at work.
wanted, end, seen = socket.inet_aton(sys.argv[1]), None, False
while not seen and (end is None or time.time() < end):
    ready = select.select([raw] if end else [raw, sys.stdin], [], [], 0.1)[0]
    if sys.stdin in ready:
        end = time.time() + 1
    if raw in ready:
        frame = raw.recv(2000)
        seen = frame[30:34] == wanted and b'straight' in frame
print(seen)
",
        address,
    ]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "listening");
    move || {
        drop(child.stdin.take());
        let seen = lines.next().expect("a line").expect("text");
        let _ = child.wait();
        seen == "True"
    }
}

#[test]
fn a_new_agent_takes_over_what_containers_have() {
    let mut setup = divided(&[("app", Some(APP)), ("free", None)]);
    setup.pod.enter("app");
    let held = setup.pod.hold("tcp4://n1.fresh.test:80");
    let before = setup.kernel.enforced().expect("what is enforced");
    let names: Vec<String> =
        before[0].containers.iter().flatten().map(|(_, container)| container.name.clone()).collect();
    assert_eq!(names, ["app", "free"]);
    setup.restart_agent();
    assert_eq!(setup.kernel.enforced().expect("what is enforced"), before);
    setup.kernel.collect().expect("a collection");
    let targets = ["udp://198.18.1.1:123", "udp://198.18.2.1:123"];
    assert_eq!(connect(&setup, "app", &targets), ["ok", "denied"]);
    assert_eq!(connect(&setup, "free", &targets), ["ok", "ok"]);
    assert_eq!(connect(&setup, "new", &targets), ["timeout", "timeout"]);
    setup.divide(&[("app", Some(OTHER)), ("free", None)]);
    assert_eq!(connect(&setup, "app", &targets), ["denied", "ok"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(held.end()["outcome"], "ok");
}

#[test]
fn containers_and_pods_that_end_leave_nothing() {
    let mut setup = divided(&[("app", Some(APP)), ("other", Some(OTHER)), ("free", None)]);
    assert_eq!(connect(&setup, "app", &["tcp4://n1.fresh.test:80"]), ["ok"]);
    setup.divide(&[("other", Some(OTHER))]);
    assert_eq!(containers(&setup), 1);
    setup.kernel.collect().expect("a collection");
    let learned: HashMap<MapData, LearnedKey, Learned> =
        map(&setup, "LEARNED").try_into().expect("a hash map");
    assert_eq!(learned.keys().count(), 0);
    setup.release();
    setup.kernel.collect().expect("a collection");
    assert_eq!(containers(&setup), 0);
    let states: Array<MapData, SubjectState> = map(&setup, "SUBJECTS").try_into().expect("an array");
    assert!((1..20).all(|subject| states.get(&subject, 0).expect("a state") == SubjectState::default()));
    assert_eq!(connect(&setup, "other", &["udp://198.18.1.1:123"]), ["ok"]);
    assert_eq!(std::fs::read_dir(setup.pins("pods")).expect("pins").count(), 0);
}

#[test]
fn a_pod_becomes_divided_and_one_again_without_a_cut_or_a_window() {
    // Asks all the while for what is never allowed to it, and counts what got out.
    const ASK: &str = "
import select, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sent = denied = 0
print('asking', flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        s.sendto(b'?', ('198.18.9.1', 123))
        sent += 1
    except PermissionError:
        denied += 1
print(sent, denied > 0, flush=True)
";
    let mut setup = Setup::on_node(APP);
    setup.settle(APP);
    setup.pod.enter("app");
    let by_name = setup.pod.hold("tcp4://n1.fresh.test:80");
    let by_address = setup.pod.hold("tcp://198.18.1.1:80");
    let _server = setup.pod.serve(8080, 8080);
    let inbound = setup.pod.world_hold(&format!("tcp://{POD4}:8080"));
    let mut command = setup.pod.command("python3".as_ref(), &["-c", ASK]);
    let mut asking = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    let mut said = BufReader::new(asking.stdout.take().expect("its output")).lines();
    assert_eq!(said.next().expect("a line").expect("text"), "asking");
    for _ in 0..10 {
        // Every time anew: an emulated machine takes longer for all of this than the TTL is.
        let learned = format!("tcp://{}:80", setup.pod.dig(&["n8.fresh.test"]));
        setup.divide(&[("app", Some(APP)), ("free", None)]);
        setup.settle_container("app", APP);
        assert_eq!(setup.pod.connect_one(&learned), "ok");
        setup.enforce(APP);
        setup.settle(APP);
        assert_eq!(setup.pod.connect_one(&learned), "ok");
    }
    drop(asking.stdin.take());
    assert_eq!(said.next().expect("a line").expect("text"), "0 True");
    let _ = asking.wait();
    for held in [by_name, by_address, inbound] {
        let end = held.end();
        assert_eq!(end["outcome"], "ok");
        assert!(is_without_a_pause(&end), "{end}");
    }
}

#[test]
fn connections_from_before_are_told_apart_by_container() {
    let mut setup = Setup::with_link(Link::ByNode);
    setup.pod.enter("app");
    let _server = setup.pod.serve(8080, 8080);
    let inbound = setup.pod.world_hold(&format!("tcp://{POD4}:8080"));
    let allowed = setup.pod.hold("tcp://198.18.1.1:80");
    let denied = setup.pod.hold("tcp://198.18.2.1:80");
    setup.pod.enter("free");
    let free = setup.pod.hold("tcp://198.18.2.1:80");
    setup.divide(&[("app", Some(APP)), ("free", None)]);
    assert_eq!(setup.settle_container("app", APP), 1);
    std::thread::sleep(Duration::from_millis(500));
    setup.divide(&[("app", Some(NOTHING)), ("free", None)]);
    assert_eq!(setup.settle_container("app", NOTHING), 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(inbound.end()["outcome"], "ok");
    assert_eq!(free.end()["outcome"], "ok");
    assert_ne!(allowed.end()["outcome"], "ok");
    assert_ne!(denied.end()["outcome"], "ok");
}

#[test]
fn connections_of_several_containers_are_looked_at_together_and_judged_apart() {
    let mut setup = divided(&[("app", Some(APP)), ("other", Some(OTHER))]);
    let holds = |container: &str, targets: [&str; 2]| {
        setup.pod.enter(container);
        targets.map(|target| setup.pod.hold(target))
    };
    let app = holds("app", ["tcp://198.18.1.1:80", "tcp://198.18.1.2:80"]);
    let other = holds("other", ["tcp://198.18.2.1:80", "tcp://198.18.2.2:80"]);
    let both = "{egress: [{to: [{cidr: 198.18.1.1/32}, {cidr: 198.18.2.0/24}]}]}";
    setup.divide(&[("app", Some(both)), ("other", Some(NOTHING))]);
    assert_eq!(setup.settle_containers(&[("app", both), ("other", NOTHING)]), 3);
    let outcomes = app.into_iter().chain(other).map(|held| held.end()["outcome"] == "ok");
    assert_eq!(outcomes.collect::<Vec<_>>(), [true, false, false, false]);
    assert_eq!(setup.settle_containers(&[("app", APP), ("other", OTHER)]), 0, "that is not in force");
}

#[test]
fn a_free_container_that_gets_an_egg_loses_what_that_does_not_allow() {
    let mut setup = divided(&[("app", Some(APP)), ("sidecar", None)]);
    setup.pod.enter("sidecar");
    let allowed = setup.pod.hold("tcp://198.18.2.1:80");
    let denied = setup.pod.hold("tcp://198.18.9.1:80");
    setup.divide(&[("app", Some(APP)), ("sidecar", Some(OTHER))]);
    assert_eq!(setup.settle_container("sidecar", OTHER), 1);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(allowed.end()["outcome"], "ok");
    assert_ne!(denied.end()["outcome"], "ok");
}
