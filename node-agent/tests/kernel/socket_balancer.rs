//! Services by name behind a load balancer on sockets, the pod's DNS among them.

use std::fs;
use std::path::PathBuf;

use l7egg_crds::PolicySpec;
use l7egg_node_agent::datapath::Datapath;
use l7egg_policy::{ResolvConf, Source, compile};

use crate::harness::{Link, Recorder, Setup, SocketBalancer, fail};

const DNS: &str = "10.96.0.10";
const DNS6: &str = "fd00:96::10";
const SERVICES: [(&str, &str); 6] = [
    ("10.96.0.10:53", "198.18.0.53:53"),
    ("10.96.0.20:80", "198.18.20.1:80"),
    ("10.96.0.30:123", "198.18.20.3:123"),
    ("[fd00:96::10]:53", "[2001:db8:18::53]:53"),
    ("[fd00:96::20]:80", "[2001:db8:18::20:1]:80"),
    ("[fd00:96::30]:123", "[2001:db8:18::20:3]:123"),
];
const ZONE: &str = "
web.shop.svc.test. 30 IN A 10.96.0.20
web.shop.svc.test. 30 IN AAAA fd00:96::20
other.shop.svc.test. 30 IN A 10.96.0.40
other.shop.svc.test. 30 IN AAAA fd00:96::40
api.shop.test. 30 IN A 198.18.20.2
api.shop.test. 30 IN AAAA 2001:db8:18::20:2
";
const POLICY: &str = "{egress: [{to: [{domainNames: [web.shop.svc.test, api.shop.test]}], ports: [{port: 80}]}, {to: [{cidr: 10.96.0.30/32}, {cidr: 'fd00:96::30/128'}], ports: [{protocol: UDP, port: 123}]}]}";

/// A pod that the balancer works for, and whose DNS server is a Service.
fn setup() -> (Setup, SocketBalancer) {
    setup_with(Link::Direct, DNS)
}

/// The same with the Service of this address, and the world elsewhere.
fn setup_with(link: Link, dns: &str) -> (Setup, SocketBalancer) {
    let mut setup = Setup::with_link(link);
    setup.pod.set_names(ZONE);
    let ancestor = setup.pod.cgroup().ancestors().nth(2).expect("the pod's ancestors").to_owned();
    let balancer = SocketBalancer::new(&ancestor, &SERVICES);
    let resolv_conf = PathBuf::from("/etc/netns").join(format!("{}p/resolv.conf", setup.pod.uid()));
    fs::write(resolv_conf, format!("nameserver {dns}\n")).expect("resolv.conf");
    enforce(&mut setup, POLICY);
    (setup, balancer)
}

fn enforce(setup: &mut Setup, yaml: &str) {
    let spec: PolicySpec = serde_yaml::from_str(yaml).expect("a policy in the test");
    let conf = ResolvConf::of_servers([DNS, DNS6].map(|server| server.parse().expect("an address")));
    let policy =
        compile(&[Source { name: "Egg test/test".into(), spec: &spec }], &conf).expect("a valid policy");
    setup.kernel.enforce(setup.pod.uid(), setup.pod.cgroup(), &policy).unwrap_or_else(fail);
}

#[test]
fn a_service_is_reached_by_its_name_and_its_backend_is_not_opened() {
    for dns in [DNS, DNS6] {
        let (setup, _balancer) = setup_with(Link::Direct, dns);
        let by_4 = [
            "tcp4://web.shop.svc.test:80",
            "tcp4://api.shop.test:80",
            "tcp4://other.shop.svc.test:80",
            "tcp://198.18.20.1:80",
            "udp://10.96.0.30:123",
            "udp://198.18.20.3:123",
        ];
        let by_6 = [
            "tcp6://web.shop.svc.test:80",
            "tcp6://api.shop.test:80",
            "tcp6://other.shop.svc.test:80",
            "tcp://[2001:db8:18::20:1]:80",
            "udp://[fd00:96::30]:123",
            "udp://[2001:db8:18::20:3]:123",
        ];
        for targets in [by_4, by_6] {
            let got = setup.pod.connect(&targets);
            assert_eq!(got, ["ok", "ok", "denied", "denied", "ok", "denied"], "{dns}: {targets:?}");
        }
    }
}

#[test]
fn dns_is_asked_by_its_service_only() {
    let (setup, _balancer) = setup();
    assert_eq!(setup.pod.dig(&[&format!("@{DNS}"), "api.shop.test"]), "198.18.20.2");
    assert_eq!(setup.pod.connect_one("tcp://198.18.20.2:80"), "ok");
    assert_eq!(setup.pod.dig(&["+tcp", &format!("@{DNS}"), "web.shop.svc.test"]), "10.96.0.20");
    assert_eq!(setup.pod.connect_one("tcp://10.96.0.20:80"), "ok");
    let direct = setup.pod.dig(&["@198.18.0.53", "api.shop.test"]);
    assert!(!direct.contains("198.18.20.2"), "{direct}");
}

#[test]
fn dns_over_ipv6_is_asked_by_its_service_only() {
    let (setup, _balancer) = setup_with(Link::Direct, DNS6);
    assert_eq!(setup.pod.dig(&[&format!("@{DNS6}"), "api.shop.test", "AAAA"]), "2001:db8:18::20:2");
    assert_eq!(setup.pod.connect_one("tcp://[2001:db8:18::20:2]:80"), "ok");
    assert_eq!(setup.pod.dig(&["+tcp", &format!("@{DNS6}"), "web.shop.svc.test", "AAAA"]), "fd00:96::20");
    assert_eq!(setup.pod.connect_one("tcp://[fd00:96::20]:80"), "ok");
    let direct = setup.pod.dig(&["@2001:db8:18::53", "api.shop.test", "AAAA"]);
    assert!(!direct.contains("2001:db8:18::20:2"), "{direct}");
}

#[test]
fn a_change_of_policy_keeps_what_it_still_allows() {
    let (mut setup, _balancer) = setup();
    let names = ["tcp4://web.shop.svc.test:80", "tcp6://web.shop.svc.test:80"];
    assert_eq!(setup.pod.connect(&names), ["ok", "ok"]);
    let held = ["tcp://10.96.0.20:80", "tcp://[fd00:96::20]:80"].map(|target| setup.pod.hold(target));
    enforce(&mut setup, "{egress: [{to: [{domainNames: ['*.shop.svc.test']}]}]}");
    std::thread::sleep(std::time::Duration::from_millis(500));
    for held in held {
        let report = held.end();
        assert_eq!(report["outcome"], "ok", "{report}");
    }
}

#[test]
fn the_backstop_takes_a_packet_socket_for_none_of_the_pods_own() {
    let (mut setup, _balancer) = setup_with(Link::ByNode, DNS);
    setup.try_cover();
    assert_eq!(
        setup.pod.connect(&["tcp4://web.shop.svc.test:80", "udp://10.96.0.30:123", "udp://198.18.20.3:123"]),
        ["ok", "ok", "denied"]
    );
    let recorder = Recorder::new(&setup.pod.world_netns());
    let script = "
import socket, struct
def to(address):
    head = struct.pack('!BBHHHBBH4s4s', 69, 0, 38, 1, 0, 64, 17, 0, socket.inet_aton('10.77.0.2'), socket.inet_aton(address))
    total = sum(struct.unpack('!10H', head))
    total = (total & 0xffff) + (total >> 16)
    head = head[:10] + struct.pack('!H', ~total & 0xffff) + head[12:]
    return head + struct.pack('!HHHH', 5000, 123, 18, 0) + b'the secret'
frames = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
for address in ('198.18.20.9', '198.18.20.3'):
    frames.sendto(to(address), ('eth0', 0x0800, 0, 0, bytes([255] * 6)))
";
    let output = setup.pod.command("python3".as_ref(), &["-c", script]).output().expect("python3");
    assert!(output.status.success(), "{output:?}");
    std::thread::sleep(std::time::Duration::from_millis(200));
    let got = recorder.frames().iter().filter(|frame| frame.windows(6).any(|it| it == b"secret")).count();
    assert_eq!(got, 0);
}

#[test]
fn a_datagram_held_back_is_judged_by_where_it_goes() {
    let (setup, _balancer) = setup();
    let script = "
import errno, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('198.18.20.9', 123))
s.send(b'one', socket.MSG_MORE)
s.connect(('10.96.0.30', 123))
try:
    s.send(b'two')
    print('sent')
except OSError as error:
    print(errno.errorcode[error.errno])
";
    let output = setup.pod.command("python3".as_ref(), &["-c", script]).output().expect("python3");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "EPERM", "{output:?}");
}
