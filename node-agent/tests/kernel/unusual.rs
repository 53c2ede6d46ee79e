//! Packets that are unusual and allowed: they pass, and where they are not allowed they do not. By the programs on the cgroup alone,
//! and by the backstop as well.

use crate::harness::{Link, Said, Setup};

const LINKS: [Link; 2] = [Link::Direct, Link::ByNode];

const POLICY: &str = r#"{egress: [{to: [{cidr: 198.18.1.0/24}, {cidr: "2001:db8:18:7::/64"}, {cidr: 239.1.0.0/16}, {cidr: "ff05::1:0/112"}]}]}"#;

/// What a script in the pod prints, a line each.
fn lines(setup: &Setup, script: &str, arguments: &[&str]) -> Vec<String> {
    let arguments = [&["-c", script], arguments].concat();
    let output = setup.pod.command("python3".as_ref(), &arguments).output().expect("python3");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// A pod with the policy, or without any, behind each link.
fn each(mut work: impl FnMut(&Setup, bool)) {
    for link in LINKS {
        for is_enforced in [false, true] {
            let mut setup = Setup::with_link(link);
            if is_enforced {
                setup.enforce(POLICY);
                setup.settle(POLICY);
            }
            work(&setup, is_enforced);
        }
    }
}

/// Sends to addresses with each kind of IPv6 extension header, small datagrams, such that have to be sent in pieces, and TCP.
const OPTIONS: &str = "
import socket, sys
HOPS, DESTINATION = socket.IPV6_HOPOPTS, socket.IPV6_DSTOPTS
# An option that is skipped by whom does not know it, in a header of sixteen bytes.
header = bytes([0, 1, 0x1e, 12]) + bytes(12)
def tried(kind, size, option):
    with socket.socket(socket.AF_INET6, kind) as s:
        s.settimeout(10)
        s.setsockopt(socket.IPPROTO_IPV6, option, header)
        try:
            s.connect((address, 80 if kind == socket.SOCK_STREAM else 123))
            s.send(b'x' * size)
            got = 0
            while got < size:
                got += len(s.recv(size))
            return 'ok'
        except OSError as e:
            return type(e).__name__
for address in sys.argv[1:]:
    for option in (HOPS, DESTINATION):
        for kind, size in ((socket.SOCK_DGRAM, 100), (socket.SOCK_DGRAM, 8000), (socket.SOCK_STREAM, 8000)):
            print(tried(kind, size, option))
";

#[test]
fn extension_headers_of_ipv6() {
    each(|setup, is_enforced| {
        let denied = if is_enforced { "PermissionError" } else { "ok" };
        let got = lines(setup, OPTIONS, &["2001:db8:18:7::1", "2001:db8:18:8::1"]);
        assert_eq!(got, [["ok"; 6], [denied; 6]].concat());
    });
}

/// Joins groups in the world; says which were heard until it is told to go on, or soon after.
const HEAR: &str = "
import select, socket, struct, sys, time
heard = []
sockets = {}
for group in sys.argv[1:]:
    six = ':' in group
    s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((group, 5000))
    index = socket.if_nametoindex('eth0')
    if six:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, group) + struct.pack('@I', index))
    else:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + bytes(4) + struct.pack('@i', index))
    sockets[s] = group
print('listening', flush=True)
end = None
while end is None or time.monotonic() < end:
    for s in select.select([*sockets, sys.stdin][:None if end is None else -1], [], [], 0.1)[0]:
        if s is sys.stdin:
            end = time.monotonic() + 0.5
            continue
        s.recv(100)
        if sockets[s] not in heard:
            heard.append(sockets[s])
print(*sorted(heard))
";
/// Sends to each group.
const SAY: &str = "
import socket, sys
for group in sys.argv[1:]:
    s = socket.socket(socket.AF_INET6 if ':' in group else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        s.sendto(b'x', (group, 5000))
        print('sent')
    except OSError as e:
        print(type(e).__name__)
";

#[test]
fn groups() {
    const ALLOWED: [&str; 2] = ["239.1.2.3", "ff05::1:3"];
    const DENIED: [&str; 2] = ["239.2.2.3", "ff05::2:3"];
    let all = [ALLOWED, DENIED].concat();
    each(|setup, is_enforced| {
        let mut command = setup.pod.in_world("python3".as_ref());
        command.args([&["-c", HEAR], all.as_slice()].concat());
        let mut hearing = Said::start(command);
        assert_eq!(hearing.next(), "listening");
        let (denied, heard) = if is_enforced {
            ("PermissionError", ALLOWED.to_vec())
        } else {
            ("sent", vec![ALLOWED[0], DENIED[0], ALLOWED[1], DENIED[1]])
        };
        assert_eq!(lines(setup, SAY, &all), ["sent", "sent", denied, denied]);
        hearing.go_on();
        assert_eq!(hearing.next(), heard.join(" "));
    });
}

/// Sends a datagram of 8,900 bytes in one piece, and much by TCP.
const JUMBO: &str = "
import socket, sys
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, DO = 10, 23, 2
for address in sys.argv[1:]:
    six = ':' in address
    family = socket.AF_INET6 if six else socket.AF_INET
    for kind, port, size in ((socket.SOCK_DGRAM, 123, 8900), (socket.SOCK_STREAM, 80, 200000)):
        s = socket.socket(family, kind)
        s.settimeout(10)
        s.setsockopt(*((socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, DO) if six else (socket.IPPROTO_IP, IP_MTU_DISCOVER, DO)))
        try:
            s.connect((address, port))
            s.sendall(b'x' * size)
            got = 0
            while got < size:
                got += len(s.recv(size))
            print('ok')
        except OSError as e:
            print(type(e).__name__)
";
const TO: [&str; 4] = ["198.18.1.1", "2001:db8:18:7::1", "198.18.2.1", "2001:db8:18:8::1"];

#[test]
fn large_frames() {
    each(|setup, is_enforced| {
        setup.pod.set_mtu(9000);
        let denied = if is_enforced { "PermissionError" } else { "ok" };
        assert_eq!(lines(setup, JUMBO, &TO), [["ok"; 4], [denied; 4]].concat());
    });
}

/// Has the kernel cut what is sent into datagrams of 1,000 bytes (UDP_SEGMENT, udp(7)), and counts those that come back.
const SEGMENTS: &str = "
import socket, sys
UDP_SEGMENT = 103
for address in sys.argv[1:]:
    for connected in (True, False):
        s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_DGRAM)
        s.settimeout(10)
        s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        try:
            if connected:
                s.connect((address, 123))
                s.send(b'x' * 10500)
            else:
                s.sendto(b'x' * 10500, (address, 123))
            print(*sorted({len(s.recv(2000)) for _ in range(11)}))
        except OSError as e:
            print(type(e).__name__)
";

#[test]
fn segments_of_udp() {
    each(|setup, is_enforced| {
        let denied = if is_enforced { "PermissionError" } else { "500 1000" };
        assert_eq!(lines(setup, SEGMENTS, &TO), [["500 1000"; 4], [denied; 4]].concat());
    });
}
