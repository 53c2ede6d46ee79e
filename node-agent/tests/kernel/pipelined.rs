//! Many queries on one TCP connection, and many answers, as many to a segment as there is room for (RFC 7766 §6.2.1.1).

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{Setup, is_emulated};

const COUNT: usize = 24;
const POLICY: &str = "{egress: [{to: [{domainNames: ['*.many.test']}]}]}";
const RESOLVER: &str = "198.18.0.99";

/// Answers all of them at once, each with an address of its own.
const SERVER: &str = "
import socket, struct
LOST
listener = socket.create_server(('198.18.0.99', 53))
print('listening', flush=True)
peer, _ = listener.accept()
said = b''
for number in range(24):
    length, = struct.unpack('!H', peer.recv(2, socket.MSG_WAITALL))
    question = peer.recv(length, socket.MSG_WAITALL)
    answer = question[:2] + bytes.fromhex('818000010001 00000000') + question[12:]
    answer += bytes.fromhex('c00c00010001 0000012c 0004') + bytes([198, 18, 50, 1 + number])
    said += struct.pack('!H', len(answer)) + answer
peer.sendall(said)
peer.recv(1)
print(lost(peer), flush=True)
";

/// How many segments were sent again (`tcpi_total_retrans`) that the other side had not got before: of the others it says so
/// (`tcpi_dsack_dups`, RFC 2883), a moment later. A machine that stands still makes TCP send again what is not lost.
const LOST: &str = "
import time
def lost(connection):
    for _ in range(200):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 220)
        lost = struct.unpack_from('I', info, 100)[0] - struct.unpack_from('I', info, 216)[0]
        if lost <= 0: break
        time.sleep(0.005)
    return max(lost, 0)
";

/// Asks all of them at once; says how many milliseconds it took, and how many segments were lost.
const CLIENT: &str = "
import socket, struct
LOST
dns = socket.create_connection(('198.18.0.99', 53), 30)
questions = b''
for number in range(24):
    question = struct.pack('!HHHHHH', number, 0x100, 1, 0, 0, 0)
    for label in (b'n%d' % number, b'many', b'test', b''):
        question += bytes([len(label)]) + label
    question += struct.pack('!HH', 1, 1)
    questions += struct.pack('!H', len(question)) + question
start = time.monotonic()
dns.sendall(questions)
for number in range(24):
    length, = struct.unpack('!H', dns.recv(2, socket.MSG_WAITALL))
    assert len(dns.recv(length, socket.MSG_WAITALL)) == length
print(round((time.monotonic() - start) * 1000), lost(dns))
";

#[test]
fn many_messages_in_one_segment_wait_for_nothing() {
    let mut setup = Setup::new();
    setup.enforce_asking(POLICY, RESOLVER);
    let mut server = setup.pod.in_world("python3".as_ref());
    let mut server =
        server.args(["-c", &SERVER.replace("LOST", LOST)]).stdout(Stdio::piped()).spawn().expect("python3");
    let mut said = BufReader::new(server.stdout.take().expect("its output"));
    said.read_line(&mut String::new()).expect("a line");
    let output = setup
        .pod
        .command("python3".as_ref(), &["-c", &CLIENT.replace("LOST", LOST)])
        .output()
        .expect("python3");
    let mut of_world = String::new();
    said.read_line(&mut of_world).expect("a line");
    let _ = server.kill();
    let _ = server.wait();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut said = text.split_whitespace().map(|number| number.parse::<u64>().expect("a number"));
    let (took, lost) = (said.next().expect("a time"), said.next().expect("a count"));
    println!("{took} ms");
    assert!(
        lost == 0 && of_world.trim() == "0" || is_emulated(),
        "{took} ms, {lost} lost, of the world's {of_world}"
    );
    let targets: Vec<String> = (1..=COUNT).map(|host| format!("tcp://198.18.50.{host}:80")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    assert_eq!(setup.pod.connect(&targets), ["ok"; COUNT]);
    assert_eq!(setup.pod.connect_one("tcp://198.18.50.99:80"), "denied");
}
