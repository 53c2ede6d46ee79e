//! Names, learned from answers over TCP.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::Stdio;

use l7egg_node_agent::datapath::Settled;

use crate::harness::Setup;

const POLICY: &str = "{egress: [{to: [{domainNames: ['*.shop.test']}]}]}";
/// 3.8 KB of answer: too long for UDP without EDNS, and three segments long.
const ADDRESSES: usize = 180;

fn setup() -> Setup {
    let setup = Setup::with_policy(POLICY);
    let mut zone = String::from("one.shop.test. 30 IN A 198.18.30.1\ntwo.shop.test. 30 IN A 198.18.30.2\n");
    zone.push_str("secret.other.test. 30 IN A 198.18.30.3\n");
    for host in 1..=ADDRESSES {
        writeln!(zone, "big.shop.test. 30 IN A 198.18.31.{host}").expect("a string");
    }
    setup.pod.set_names(&zone);
    setup
}

#[test]
fn a_name_asked_over_tcp() {
    let setup = setup();
    assert_eq!(setup.pod.dig(&["+tcp", "@198.18.0.53", "one.shop.test"]), "198.18.30.1");
    assert_eq!(setup.pod.dig(&["+tcp", "@2001:db8:18::53", "two.shop.test"]), "198.18.30.2");
    assert_eq!(setup.pod.dig(&["+tcp", "@198.18.0.53", "secret.other.test"]), "198.18.30.3");
    let got = setup.pod.connect(&["tcp://198.18.30.1:80", "tcp://198.18.30.2:80", "tcp://198.18.30.3:80"]);
    assert_eq!(got, ["ok", "ok", "denied"]);
}

/// Asks over a connection that it has opened before it is told to; the answer, or the name of the error.
const BEFORE: &str = "
import errno, socket, struct, sys
s = socket.create_connection(('198.18.0.53', 53))
print('connected', flush=True)
sys.stdin.readline()
query = struct.pack('!HHHHHH', 7, 256, 1, 0, 0, 0) + b'\\x03one\\x04shop\\x04test\\0' + struct.pack('!HH', 1, 1)
try:
    s.sendall(struct.pack('!H', len(query)) + query)
    print(socket.inet_ntoa(s.recv(1000)[-4:]), flush=True)
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
";

/// A connection that was opened in the pod this moment; what comes of a question on it after `meanwhile`.
fn asked_after(setup: &mut Setup, meanwhile: impl FnOnce(&mut Setup)) -> String {
    let mut python = setup.pod.command("python3".as_ref(), &["-c", BEFORE]);
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    let mut lines = BufReader::new(python.stdout.take().expect("its output")).lines().map_while(Result::ok);
    assert_eq!(lines.next().expect("a line"), "connected");
    meanwhile(setup);
    python.stdin.take().expect("its input").write_all(b"\n").expect("to be heard");
    let said = lines.next().expect("a line");
    python.wait().expect("its end");
    said
}

#[test]
fn what_was_open_before_teaches_nothing() {
    // The segments that it begins with were seen by nobody: the next may be the middle of a message.
    let mut setup = setup();
    setup.release();
    let said = asked_after(&mut setup, |setup| setup.enforce(POLICY));
    assert_eq!(said, "198.18.30.1", "the answer passes");
    assert_eq!(setup.pod.connect_one("tcp://198.18.30.1:80"), "denied");
}

#[test]
fn what_was_open_before_ends_when_it_is_looked_at_and_teaches_when_it_is_opened_again() {
    let mut setup = setup();
    setup.release();
    let audit = POLICY.replacen('{', "{mode: Audit, ", 1);
    let said = asked_after(&mut setup, |setup| {
        setup.enforce(&audit);
        assert_eq!(setup.settle_all(&audit), Settled::default(), "that denies nothing");
        setup.enforce(POLICY);
        assert_eq!(setup.settle_all(POLICY).unread, 1);
    });
    assert_eq!(said, "ECONNABORTED");
    assert_eq!(setup.pod.dig(&["+tcp", "@198.18.0.53", "one.shop.test"]), "198.18.30.1");
    assert_eq!(setup.pod.connect_one("tcp://198.18.30.1:80"), "ok");
}

#[test]
fn so_does_what_was_open_under_another_version() {
    let mut setup = Setup::on_node(POLICY);
    setup.pod.set_names("one.shop.test. 30 IN A 198.18.30.1\n");
    let said = asked_after(&mut setup, |setup| {
        assert_eq!(setup.settle_all(POLICY).unread, 0, "it was read from its beginning");
        setup.become_another_version();
        setup.restart_agent();
        setup.enforce(POLICY);
        assert_eq!(setup.settle_all(POLICY).unread, 1);
        setup.retire_older(true);
    });
    assert_eq!(said, "ECONNABORTED");
    assert_eq!(setup.pod.dig(&["+tcp", "@198.18.0.53", "one.shop.test"]), "198.18.30.1");
    assert_eq!(setup.pod.connect_one("tcp://198.18.30.1:80"), "ok");
    let said = asked_after(&mut setup, |setup| {
        setup.enforce("{egress: [{to: [{domainNames: ['**.test']}]}]}");
        assert_eq!(setup.settle_all("{egress: [{to: [{domainNames: ['**.test']}]}]}").unread, 0);
    });
    assert_eq!(said, "198.18.30.1", "a change of policy ends none");
}

#[test]
fn several_questions_on_one_connection() {
    let setup = setup();
    let server = "@198.18.0.53";
    let answers = setup.pod.dig(&[
        "+tcp",
        "+keepopen",
        server,
        "one.shop.test",
        "+tcp",
        "+keepopen",
        server,
        "two.shop.test",
    ]);
    println!("{answers}");
    assert_eq!(setup.pod.connect(&["tcp://198.18.30.1:80", "tcp://198.18.30.2:80"]), ["ok", "ok"]);
}

#[test]
fn a_truncated_answer_is_asked_for_again_and_learned_whole() {
    let setup = setup();
    assert_eq!(setup.pod.connect_one("tcp4://big.shop.test:80"), "ok");
    let last = format!("tcp://198.18.31.{ADDRESSES}:80");
    assert_eq!(
        setup.pod.connect(&["tcp://198.18.31.1:80", &last, "tcp://198.18.31.181:80"]),
        ["ok", "ok", "denied"]
    );
}

#[test]
fn an_answer_in_many_segments_is_learned_before_its_last_goes_on() {
    let setup = setup();
    setup.pod.without_offload();
    let answer = setup.pod.dig(&["+tcp", "@198.18.0.53", "big.shop.test"]);
    assert_eq!(answer.lines().count(), ADDRESSES);
    let last = format!("tcp://198.18.31.{ADDRESSES}:80");
    assert_eq!(setup.pod.connect(&["tcp://198.18.31.1:80", &last]), ["ok", "ok"]);
}

#[test]
fn an_answer_of_4096_bytes_over_udp() {
    let setup = setup();
    // Three fragments.
    let answer = setup.pod.dig(&["+ignore", "+bufsize=4096", "@198.18.0.53", "big.shop.test"]);
    println!("{} addresses over UDP", answer.lines().count());
    let last = answer.lines().last().expect("an answer").to_owned();
    assert_eq!(setup.pod.connect_one(&format!("tcp://{last}:80")), "ok");
}

/// Asks for both names over one TCP socket that is disconnected (connect to `AF_UNSPEC`) in between.
const REUSED_SOCKET: &str = "
import ctypes, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
dns = socket.socket()
dns.settimeout(3)
for number, label in enumerate((b'one', b'two')):
    dns.connect(('198.18.0.53', 53))
    question = struct.pack('!HHHHHH', number, 0x100, 1, 0, 0, 0)
    question += b''.join(bytes([len(l)]) + l for l in (label, b'shop', b'test')) + b'\\0' + struct.pack('!HH', 1, 1)
    dns.sendall(struct.pack('!H', len(question)) + question)
    length, = struct.unpack('!H', dns.recv(2, socket.MSG_WAITALL))
    print(len(dns.recv(length, socket.MSG_WAITALL)) == length)
    libc.connect(dns.fileno(), struct.pack('=H14x', socket.AF_UNSPEC), 16)
";

#[test]
fn a_socket_that_is_connected_again_begins_anew() {
    let setup = setup();
    let output = setup.pod.command("python3".as_ref(), &["-c", REUSED_SOCKET]).output().expect("python3");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "True\nTrue\n", "{output:?}");
    assert_eq!(setup.pod.connect(&["tcp://198.18.30.1:80", "tcp://198.18.30.2:80"]), ["ok", "ok"]);
}

#[test]
fn an_answer_longer_than_any_datagram_is_learned_and_one_past_all_bounds_arrives() {
    let setup = Setup::with_policy(POLICY);
    let mut zone = String::new();
    // 11 KB and 34 KB: the server does not compress all of their names.
    for (name, addresses) in [("long", 500), ("longer", 1200)] {
        for host in 0..addresses {
            writeln!(zone, "{name}.shop.test. 30 IN A 198.18.{}.{}", 40 + host / 200, 1 + host % 200)
                .expect("a string");
        }
    }
    setup.pod.set_names(&zone);
    let answer = setup.pod.dig(&["+tcp", "@198.18.0.53", "long.shop.test"]);
    let addresses: Vec<&str> = answer.lines().collect();
    assert_eq!(addresses.len(), 500);
    for address in [addresses[0], addresses[250], addresses[499]] {
        assert_eq!(setup.pod.connect_one(&format!("tcp://{address}:80")), "ok", "{address}");
    }
    let answer = setup.pod.dig(&["+tcp", "@198.18.0.53", "longer.shop.test"]);
    assert_eq!(answer.lines().count(), 1200, "it arrives");
    let addresses: Vec<&str> = answer.lines().collect();
    // Some 16 KiB of it are read, which is at most every second one.
    for (address, outcome) in [(addresses[0], "ok"), (addresses[500], "ok"), (addresses[1199], "denied")] {
        assert_eq!(setup.pod.connect_one(&format!("tcp://{address}:80")), outcome, "{address}");
    }
}
