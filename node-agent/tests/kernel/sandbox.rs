//! Which network is a pod's, where its sandbox is made anew or its processes make networks of their own.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use l7egg_ebpf_common::abi::{Address, AddressKey};
use l7egg_node_agent::datapath::{Cover, Datapath};
use l7egg_node_agent::netns::interfaces;

use crate::harness::{Link, POD4, Recorder, Setup, fail, policy};
use crate::netns::in_pod;

const NAMES: &str = "{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";

/// Arguments of `unshare`: a network as anybody may make one who may make a user namespace, and as root may.
const AS_ANYBODY: &[&str] = &["--user", "--map-root-user", "--net"];
const AS_ROOT: &[&str] = &["--net"];

/// Writes two frames to eth0: an ARP request, which may leave, and a datagram to where nothing may go.
const FRAMES: &str = "
import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
mac, own = s.getsockname()[4], socket.inet_aton('10.77.0.2')
def send(kind, payload):
    s.send(b'\\xff' * 6 + mac + struct.pack('!H', kind) + payload)
udp = struct.pack('!HHHH', 7000, 7000, 14, 0) + b'secret'
def header(checksum):
    start = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(udp), 1, 0, 64, 17, checksum)
    return start + own + socket.inet_aton('198.18.0.81')
total = sum(struct.unpack('!10H', header(0)))
total = (total & 0xffff) + (total >> 16)
send(0x0800, header(~total & 0xffff) + udp)
send(0x0806, struct.pack('!HHBBH', 1, 0x0800, 6, 4, 1) + mac + own + bytes(6) + socket.inet_aton('10.77.0.77'))
";

#[test]
fn a_sandbox_that_is_made_anew_has_all_that_the_first_one_had() {
    for agent_is_away in [false, true] {
        let mut setup = Setup::on_node(NAMES);
        let server = setup.pod.serve(8080, 8080);
        let own = format!("tcp://{POD4}:8080");
        assert_eq!(setup.pod.connect_one("tcp4://n1.fresh.test:80"), "ok");
        assert_eq!(sent_raw(&setup), ["ARP"], "what is seen where there is a program");
        drop(server);
        let before = setup.believed();
        let gone = Address::from("10.77.0.99".parse::<IpAddr>().expect("an address"));
        let gone = AddressKey { subject: setup.subject(), address: gone };
        setup.addresses().insert(gone, 1, 0).expect("an address of the old network");
        setup.pod.renew_sandbox();
        if agent_is_away {
            setup.restart_agent();
        }
        // What was found before counts until there is something else.
        for pass in 0..40 {
            let cover = setup.try_cover();
            assert!(
                cover == Cover::Whole || agent_is_away && pass < 39 && cover == Cover::NotYet,
                "{cover:?}"
            );
            if pass == 20 {
                setup.pod.wait_for_sandbox();
            }
            sleep(Duration::from_millis(50));
        }
        let after = setup.believed();
        assert_ne!(after.network.netns, before.network.netns);
        assert_eq!(after.addresses, before.addresses, "nothing is left of the old one");
        assert!(!setup.kernel.has_lost_network(setup.pod.uid()));
        let _server = setup.pod.serve(8080, 8080);
        assert_eq!(setup.pod.connect_one("tcp4://n2.fresh.test:80"), "ok", "its answers are believed");
        assert_eq!(setup.pod.connect_one("tcp://198.18.0.81:80"), "denied");
        assert_eq!(setup.pod.world_connect(&[&own]), ["ok"], "and who connects to it is answered");
        assert_eq!(sent_raw(&setup), ["ARP"], "and it has the backstop");
    }
}

#[test]
fn a_network_that_the_oldest_process_makes_for_itself_changes_nothing() {
    for how in [AS_ANYBODY, AS_ROOT] {
        let mut setup = Setup::on_node(NAMES);
        let before = setup.believed();
        let _nested = setup.pod.nest(how);
        assert!(!setup.kernel.has_lost_network(setup.pod.uid()), "{how:?}");
        setup.pod.end_sandbox();
        assert_eq!(setup.try_cover(), Cover::Whole, "{how:?}");
        assert!(setup.kernel.has_lost_network(setup.pod.uid()), "{how:?}: the next one is looked for");
        assert_eq!(setup.believed(), before, "{how:?}");
        setup.restart_agent();
        assert_eq!(setup.try_cover(), Cover::NotYet, "{how:?}");
        assert_eq!(setup.believed(), before, "{how:?}, by a new agent");
        assert_eq!(setup.pod.connect_one("tcp4://n1.fresh.test:80"), "ok", "{how:?}");
        assert_eq!(sent_raw(&setup), ["ARP"], "{how:?}");
    }
}

#[test]
fn a_wire_that_comes_later_goes_on_as_it_did() {
    let mut setup = Setup::on_node("{egress: [{to: [{cidr: 10.78.0.0/24}]}]}");
    setup.pod.add_wire();
    assert_eq!(setup.pod.connect_one("tcp://10.78.0.1:9"), "refused");
    setup.restart_agent();
    setup.try_cover();
    assert_eq!(setup.pod.connect_one("tcp://10.78.0.1:9"), "refused", "beside a new agent");
    assert_eq!(sent_raw(&setup), ["ARP"], "and the first has its backstop");
}

#[test]
fn an_interface_that_the_pod_takes_elsewhere_keeps_its_backstop() {
    for is_oldest in [false, true] {
        let mut setup = Setup::on_node(NAMES);
        let before = setup.believed();
        let nested = setup.pod.nest(AS_ANYBODY);
        let pid = nested.id().to_string();
        in_pod(&setup.pod, &["ip", "link", "set", "eth0", "netns", &pid]);
        in_pod(&setup.pod, &["nsenter", "--target", &pid, "--net", "ip", "link", "set", "eth0", "up"]);
        // In its place it puts one that leads nowhere.
        in_pod(&setup.pod, &["ip", "link", "add", "fake", "type", "veth", "peer", "name", "other"]);
        in_pod(&setup.pod, &["ip", "link", "set", "fake", "up"]);
        in_pod(&setup.pod, &["ip", "link", "set", "other", "up"]);
        in_pod(&setup.pod, &["ip", "addr", "add", "10.99.0.3/24", "dev", "fake"]);
        if is_oldest {
            setup.pod.end_sandbox();
        }
        setup.restart_agent();
        setup.try_cover();
        assert_eq!(setup.believed(), before, "with the oldest process: {is_oldest}");
    }
}

#[test]
fn nothing_is_believed_of_a_pod_that_is_only_in_a_network_of_its_own_making() {
    let mut setup = Setup::with_link(Link::ByNode);
    let nested = setup.pod.nest(AS_ANYBODY);
    setup.pod.end_sandbox();
    setup.kernel.enforce(setup.pod.uid(), setup.pod.cgroup(), &policy(NAMES)).unwrap_or_else(fail);
    assert_eq!(setup.try_cover(), Cover::NotYet);
    assert!(setup.believed().addresses.is_empty());
    assert_ne!(setup.pod.connect_one("tcp4://n1.fresh.test:80"), "ok");
    drop(nested);
    setup.pod.renew_sandbox();
    let deadline = Instant::now() + Duration::from_secs(30);
    while setup.try_cover() != Cover::Whole {
        assert!(Instant::now() < deadline, "its own network is not found");
        sleep(Duration::from_millis(50));
    }
    assert_eq!(setup.pod.connect_one("tcp4://n2.fresh.test:80"), "ok");
}

/// Which of [`FRAMES`] arrive in the world.
pub fn sent_raw(setup: &Setup) -> Vec<&'static str> {
    let recorder = Recorder::new(&setup.pod.world_netns());
    in_pod(&setup.pod, &["python3", "-c", FRAMES]);
    let has = |bytes: &[u8]| {
        recorder.frames().iter().any(|frame| frame.windows(bytes.len()).any(|part| part == bytes))
    };
    // The one who is asked for is nobody. What was sent before is there before, or on its way.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !has(&[10, 77, 0, 77]) && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    recorder.wait_for_quiet();
    let arrived = [("secret", has(b"secret")), ("ARP", has(&[10, 77, 0, 77]))];
    arrived.into_iter().filter_map(|(what, has)| has.then_some(what)).collect()
}

#[test]
fn a_pod_with_many_interfaces_and_addresses_keeps_those_that_it_was_given() {
    let mut setup = Setup::with_link(Link::ByNode);
    let script = "for n in 1 2 3 4 5; do
            ip link add d$n type veth peer name e$n && ip link set d$n up && ip link set e$n up || exit 1
        done
        for n in $(seq 200); do ip addr add 10.99.0.$n/32 dev d1 || exit 1; done";
    in_pod(&setup.pod, &["sh", "-c", script]);
    setup.pod.add_wire();
    setup.enforce_uncovered("{egress: []}");
    assert!(matches!(setup.try_cover(), Cover::Part { uncovered } if uncovered.len() == 10));
    let believed = setup.believed();
    let host = setup.pod.node_netns();
    let found = setup.pod.netns().run(|| interfaces(&host)).expect("its namespace").expect("its interfaces");
    let given: Vec<u32> = found.iter().filter(|one| one.given).map(|one| one.index).collect();
    assert_eq!(given.len(), 2);
    assert_eq!(believed.network.interfaces[..2], given);
    assert!(!believed.network.interfaces.contains(&0), "others have the rest: {believed:?}");
    let v4 = believed.addresses.iter().filter(|address| !address.contains(':')).count();
    assert_eq!((v4, believed.addresses.len() > v4), (128, true));
    assert!(believed.addresses.contains("10.77.0.2"));
}
