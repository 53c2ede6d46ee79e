//! Queries that are refused are answered at once, on the host's side of the pod's interface.

use std::process::Output;
use std::time::{Duration, Instant};

use l7egg_ebpf_common::abi::{Counter, Shares};
use l7egg_node_agent::datapath::Datapath;

use crate::harness::{RESOLVERS, Setup, seconds};

const REFUSING: &str = "{dns: {refuseUnmatched: true}, egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";
/// Half of what dig is told to wait, and below any client's timeout. As dig says it: where the processor is emulated dig itself takes a second.
fn at_once_ms() -> u32 {
    seconds(3) * 500
}

#[test]
fn a_refused_query_is_answered_at_once() {
    let setup = Setup::on_node(REFUSING);
    for server in RESOLVERS {
        for options in [&["+noedns"][..], &["+edns=0", "+bufsize=4096"], &["+nordflag"]] {
            let (said, _) = ask(&setup, server, "secret-in-a-name.elsewhere.test", options);
            assert!(said.contains("status: REFUSED"), "{server} {options:?}: {said}");
            assert!(said.contains("QUERY: 1, ANSWER: 0"), "{said}");
            assert!(waited_ms(&said) < at_once_ms(), "{server} {options:?}: {said}");
        }
        let (said, _) = ask(&setup, server, "n1.fresh.test", &[]);
        assert!(said.contains("status: NOERROR"), "{server}: {said}");
    }
}

#[test]
fn what_comes_behind_a_query_in_one_send_is_refused_too() {
    // UDP_SEGMENT (include/uapi/linux/udp.h): datagrams of so many bytes each.
    const SEVERAL: &str = "
import socket, struct
def query(name):
    labels = b''.join(bytes([len(label)]) + label.encode() for label in name.split('.'))
    return struct.pack('!HHHHHH', 7, 256, 1, 0, 0, 0) + labels + struct.pack('!xHH', 1, 1)
first, second = query('n1.fresh.test'), query('a.evil.test')
size = max(len(first), len(second))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(17, 103, size)
try:
    s.sendto(first.ljust(size, b'\\0') + second, ('198.18.0.53', 53))
    print('sent')
except PermissionError:
    print('denied')
";
    let setup = Setup::on_node(REFUSING);
    let output = setup.pod.command("python3".as_ref(), &["-c", SEVERAL]).output().expect("python3");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "denied", "{output:?}");
}

#[test]
fn an_answer_is_not_stopped_by_what_others_let_in() {
    let setup = Setup::on_node(REFUSING);
    let firewall = "table netdev cni {
chain to_pod { type filter hook egress device \"pod\" priority 0; ip protocol {tcp, udp} drop; ip6 nexthdr {tcp, udp} drop; }
}";
    let output = setup.pod.in_node("nft".as_ref()).arg(firewall).output().expect("nft (package nftables)");
    assert!(output.status.success(), "{output:?}");
    for server in RESOLVERS {
        let (said, _) = ask(&setup, server, "elsewhere.test", &[]);
        assert!(said.contains("status: REFUSED"), "{server}: {said}");
    }
    let (said, _) = ask(&setup, RESOLVERS[0], "n1.fresh.test", &["+tries=1"]);
    assert!(!said.contains("status:"), "the firewall is none: {said}");
}

#[test]
fn the_longest_name_is_answered_too() {
    let setup = Setup::on_node(REFUSING);
    let label = "x".repeat(63);
    let name = format!("{label}.{label}.{label}.{}", "y".repeat(61));
    for server in RESOLVERS {
        let (said, _) = ask(&setup, server, &name, &[]);
        assert!(said.contains("status: REFUSED"), "{server}: {said}");
        assert!(waited_ms(&said) < at_once_ms(), "{said}");
    }
}

#[test]
fn checksums_are_right_where_no_hardware_makes_them() {
    let setup = Setup::on_node(REFUSING);
    setup.pod.without_checksum_offload();
    for server in RESOLVERS {
        for name in ["a.elsewhere.test", "ab.elsewhere.test"] {
            let (said, _) = ask(&setup, server, name, &[]);
            assert!(said.contains("status: REFUSED"), "{server}: {said}");
            assert!(waited_ms(&said) < at_once_ms(), "{said}");
        }
    }
}

#[test]
fn the_response_code_can_be_chosen() {
    let setup = Setup::on_node(
        "{dns: {refuseUnmatched: true, refusalCode: NXDOMAIN}, egress: [{to: [{domainNames: [a.test]}]}]}",
    );
    let (said, _) = ask(&setup, RESOLVERS[0], "elsewhere.test", &[]);
    assert!(said.contains("status: NXDOMAIN"), "{said}");
}

#[test]
fn a_query_over_tcp_is_answered_too() {
    let setup = Setup::on_node(REFUSING);
    for offloads in [true, false] {
        if !offloads {
            setup.pod.without_checksum_offload();
        }
        for server in RESOLVERS {
            for name in ["elsewhere.test", "some.elsewhere.test"] {
                let (said, _) = ask(&setup, server, name, &["+tcp"]);
                assert!(said.contains("status: REFUSED"), "{server}: {said}");
                assert!(said.contains("QUERY: 1, ANSWER: 0"), "{said}");
                assert!(waited_ms(&said) < at_once_ms(), "{server}: {said}");
            }
            let (said, _) = ask(&setup, server, "n1.fresh.test", &["+tcp"]);
            assert!(said.contains("status: NOERROR"), "{server}: {said}");
        }
    }
}

/// As Kubernetes writes it for a pod in the namespace `shop`; what asks for a name tries all of these before the name itself.
const SEARCHING: &str = "nameserver 198.18.0.53
search shop.svc.cluster.test svc.cluster.test cluster.test
options ndots:5 attempts:1 ";

#[test]
fn a_search_list_leads_to_names_that_are_allowed() {
    let setup = Setup::on_node(
        "{dns: {refuseUnmatched: true}, egress: [{to: [{domainNames: [redis.data.svc.cluster.test, '*.pay.svc.cluster.test', 'web-*.data.svc.cluster.test'], domainRegex: ['img[0-9][.]data[.]svc[.]cluster[.]test']}]}]}",
    );
    setup.pod.set_names(
        "redis.data.svc.cluster.test. 30 IN A 198.18.22.1
api.pay.svc.cluster.test. 30 IN A 198.18.22.2
img1.data.svc.cluster.test. 30 IN A 198.18.22.3
web-a.data.svc.cluster.test. 30 IN A 198.18.22.4
other.data.svc.cluster.test. 30 IN A 198.18.22.5
n1.elsewhere.test. 30 IN A 198.18.22.6
",
    );
    for options in [format!("timeout:{}", seconds(3)), format!("use-vc timeout:{}", seconds(3))] {
        setup.pod.set_resolv_conf(&format!("{SEARCHING}{options}\n"));
        for (name, address) in [
            ("redis.data", "198.18.22.1"),
            ("api.pay", "198.18.22.2"),
            ("img1.data", "198.18.22.3"),
            ("web-a.data", "198.18.22.4"),
            ("redis.data.svc", "198.18.22.1"),
            ("redis.data.svc.cluster.test", "198.18.22.1"),
        ] {
            assert!(look_up(&setup, name).contains(address), "{name}, {options}");
        }
        for name in ["other.data", "n1.elsewhere.test"] {
            assert_eq!(look_up(&setup, name), "", "{name}, {options}");
        }
    }
}

#[test]
fn what_is_refused_with_a_search_domain_behind_it_ends_no_search() {
    let setup = Setup::on_node(REFUSING);
    for server in RESOLVERS {
        for options in [&[][..], &["+tcp"]] {
            for (name, code) in [
                ("a.elsewhere.test", "REFUSED"),
                ("a.elsewhere.test.shop.svc.cluster.test", "NXDOMAIN"),
                ("a.cluster.test", "NXDOMAIN"),
                ("cluster.test", "REFUSED"),
            ] {
                let (said, _) = ask(&setup, server, name, options);
                assert!(said.contains(&format!("status: {code}")), "{name}: {said}");
                assert!(waited_ms(&said) < at_once_ms(), "{said}");
            }
        }
    }
}

/// What glibc finds.
fn look_up(setup: &Setup, name: &str) -> String {
    let output = setup.pod.command("getent".as_ref(), &["ahostsv4", name]).output().expect("getent");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether there is room to remember a name says nothing of whether it may be asked for.
#[test]
fn what_only_a_deny_rule_matches_is_refused_though_there_is_no_room_for_it() {
    let setup = Setup::on_node(
        "{dns: {refuseUnmatched: true}, egress: [{to: [{domainNames: [n1.fresh.test]}]}, {action: Deny, to: [{domainNames: [n2.fresh.test]}]}]}",
    );
    let mut shares = setup.shares();
    let full = Shares { names: u64::MAX / 2, ..Shares::default() };
    shares.set(setup.subject(), full, 0).expect("to set a share");
    for options in [&[][..], &["+tcp"]] {
        let (said, _) = ask(&setup, RESOLVERS[0], "n2.fresh.test", options);
        assert!(said.contains("status: REFUSED"), "{options:?}: {said}");
        let (said, _) = ask(&setup, RESOLVERS[0], "n1.fresh.test", options);
        assert!(said.contains("status: NOERROR"), "{options:?}: {said}");
    }
}

/// A DNS client over TCP.
const CLIENT: &str = r#"
import socket, struct, sys, time

def query(ident, name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    message = struct.pack("!6H", ident, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)
    return struct.pack("!H", len(message)) + message

def read(connection, count):
    got = b""
    while len(got) < count:
        more = connection.recv(count - len(got))
        if not more:
            raise EOFError(got)
        got += more
    return got

def answer(connection):
    length, = struct.unpack("!H", read(connection, 2))
    message = read(connection, length)
    return struct.unpack("!H", message[:2])[0], message[3] & 15

def case(server, pieces, shut=False, each=False):
    connection = socket.create_connection((server, 53), timeout=3 * slow)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    got = []
    for piece in pieces:
        connection.sendall(piece)
        time.sleep(0.03)
        if each:
            got.append(answer(connection))
    if shut:
        connection.shutdown(socket.SHUT_WR)
    begun = time.monotonic()
    try:
        while True:
            got.append(answer(connection))
    except (EOFError, ConnectionError) as end:
        got.append(type(end).__name__)
    connection.close()
    assert time.monotonic() - begun < 2.5 * slow, "too late"
    return got

server, slow = sys.argv[1], SLOW
"#;

/// What became of each way to say a refused query: the response code, then the end of the connection, and that before any timeout.
const CASES: &str = r#"
refused, allowed = query(7, "a.elsewhere.test"), query(8, "n1.fresh.test")
long = query(9, ".".join(["x" * 63] * 3 + ["y" * 61]))
print(case(server, [refused]))
print(case(server, [refused[:1], refused[1:9], refused[9:-1], refused[-1:]]))
print(case(server, [long[:100], long[100:]]))
print(case(server, [allowed, refused], each=True))
print(case(server, [refused + allowed]))
print(case(server, [refused], shut=True))
"#;

#[test]
fn a_query_over_tcp_in_pieces_and_among_others_is_answered() {
    let setup = Setup::on_node(REFUSING);
    for server in RESOLVERS {
        let output = python(&setup, server, CASES);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(),
            [
                "[(7, 5), 'EOFError']",
                "[(7, 5), 'EOFError']",
                "[(9, 5), 'EOFError']",
                "[(8, 0), (7, 5), 'EOFError']",
                "[(7, 5), 'EOFError']",
                "[(7, 5), 'EOFError']",
            ],
            "{server}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A query that was refused is answered by what its socket keeps of it, and may be on its way for as long as its sender likes (fq's
/// pacing): no other connection takes the place of the one that it is of.
#[test]
fn a_socket_whose_query_was_refused_opens_no_other_connection() {
    let setup = Setup::on_node(REFUSING);
    let again = "
import ctypes
connection = socket.create_connection((server, 53), timeout=3 * slow)
connection.sendall(query(7, 'a.elsewhere.test'))
print(answer(connection))
unspecified = ctypes.create_string_buffer(28)
assert ctypes.CDLL(None).connect(connection.fileno(), unspecified, 28) == 0
try:
    connection.connect((server, 53))
    print('connected')
except OSError as error:
    print(type(error).__name__)
";
    for server in RESOLVERS {
        let output = python(&setup, server, again);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            ["(7, 5)", "ConnectionRefusedError"],
            "{server}: {output:?}"
        );
    }
}

#[test]
fn nothing_is_refused_where_nothing_is_enforced() {
    let setup = Setup::on_node(&REFUSING.replacen('{', "{mode: Audit, ", 1));
    let (said, _) = ask(&setup, RESOLVERS[0], "n1.other.test", &[]);
    assert!(!said.contains("status: REFUSED") && said.contains("status:"), "{said}");
}

#[test]
fn a_connection_goes_on_where_nothing_is_enforced_and_what_it_asks_next_is_learned() {
    let setup = Setup::on_node(&REFUSING.replacen('{', "{mode: Audit, ", 1));
    let learned = || setup.kernel.counters().expect("the counters")[Counter::AddressesLearned as usize];
    let before = learned();
    let ask = "
connection = socket.create_connection((server, 53), timeout=3 * slow)
for name in ['n1.other.test', 'n1.fresh.test']:
    connection.sendall(query(7, name))
    print(answer(connection))
";
    let output = python(&setup, RESOLVERS[0], ask);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2, "{output:?}");
    assert_eq!(learned() - before, 1, "the name that a rule matches was asked for behind one that none does");
}

/// Runs what the client is to do with a server.
fn python(setup: &Setup, server: &str, script: &str) -> Output {
    let script = format!("{}{script}", CLIENT.replace("SLOW", &seconds(1).to_string()));
    setup.pod.command("python3".as_ref(), &["-c", &script, server]).output().expect("python3")
}

/// How long dig waited for the answer.
fn waited_ms(said: &str) -> u32 {
    let line = said.lines().find_map(|line| line.strip_prefix(";; Query time: "));
    let number = line.and_then(|line| line.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no time in {said}"))
}

/// What dig prints, and how long it takes.
fn ask(setup: &Setup, server: &str, name: &str, options: &[&str]) -> (String, Duration) {
    let (server, timeout) = (format!("@{server}"), format!("+timeout={}", seconds(3)));
    let begun = Instant::now();
    let mut dig = setup.pod.command("dig".as_ref(), &["+tries=1", &timeout, &server, name]);
    let output = dig.args(options).output().expect("dig (package bind9-dnsutils)");
    (String::from_utf8_lossy(&output.stdout).into_owned(), begun.elapsed())
}
