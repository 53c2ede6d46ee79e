//! What a name server says over TCP beside what it was asked, on the pod's own connection to it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::thread::{self, JoinHandle};

use l7egg_policy::Verdict;

use crate::answers::{ALIASES, Meant, Recorded, corpus};
use crate::harness::{Pod, Setup, is_emulated};
use crate::oracle::Exchange;

const NAME: &str = "api.shop.test";
const POLICY: &str = "{egress: [{to: [{domainNames: [api.shop.test]}]}]}";
/// The servers of these tests, in the world.
const SERVERS: [&str; 2] = ["198.18.0.61", "2001:db8:18::61"];

/// A server that says to the nth query, whose ID it is given, what `says` has of it.
fn serve(
    pod: &Pod,
    address: &str,
    says: impl Fn(usize, [u8; 2]) -> Vec<Vec<u8>> + Send + 'static,
) -> JoinHandle<()> {
    let added = pod.in_world("ip".as_ref()).args(["address", "add", address, "dev", "lo"]).status();
    assert!(added.expect("ip (iproute2)").success());
    let bind = || TcpListener::bind((address, 53)).expect("port 53 in the world");
    let listener = pod.world_netns().run(bind).expect("the world's namespace");
    thread::spawn(move || {
        // Until a connection says nothing.
        for number in 0.. {
            let (mut stream, _) = listener.accept().expect("a connection");
            let Some(id) = hear(&mut stream) else { return };
            for message in says(number, id) {
                let framed = [&(message.len() as u16).to_be_bytes(), &*message].concat();
                // The pod may have closed it: what was said before was of no use to it.
                let _ = stream.write_all(&framed);
            }
        }
    })
}

/// The ID of a query.
fn hear(stream: &mut TcpStream) -> Option<[u8; 2]> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut query = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut query).ok()?;
    Some([query[0], query[1]])
}

/// Sends each question, a line in hex, on a connection of its own, and prints how many bytes came back after it.
const CLIENT: &str = "
import socket, struct, sys
server = sys.argv[1]
for line in sys.stdin:
    query = bytes.fromhex(line)
    with socket.create_connection((server, 53)) as s:
        s.sendall(struct.pack('!H', len(query)) + query)
        s.settimeout(float(sys.argv[2]))
        came = 0
        try:
            while True:
                piece = s.recv(4096)
                if not piece:
                    break
                came += len(piece)
        except TimeoutError:
            pass
    print(came, flush=True)
socket.create_connection((server, 53)).close()
";

/// Has the pod ask each question; how many bytes came back.
fn ask(pod: &Pod, server: &str, questions: &[Vec<u8>]) -> Vec<usize> {
    let patience = if is_emulated() { "3" } else { "1" };
    let mut command = pod.command("python3".as_ref(), &["-c", CLIENT, server, patience]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    let hex = |question: &Vec<u8>| question.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: String = questions.iter().map(|question| hex(question) + "\n").collect();
    child.stdin.take().expect("its input").write_all(lines.as_bytes()).expect("to be heard");
    let output = child.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.parse().expect("a number")).collect()
}

#[test]
fn only_what_was_asked_on_a_connection_is_believed() {
    for server in SERVERS {
        let mut setup = Setup::new();
        setup.enforce_asking(POLICY, server);
        let world = serve(&setup.pod, server, |_, id| {
            let message = |host: u8, change: fn(&mut Exchange)| {
                let mut exchange = Exchange::new(NAME, &[[198, 18, 41, host].into()]);
                exchange.set_id(u16::from_be_bytes(id));
                change(&mut exchange);
                exchange.answer.to_vec().expect("an answer")
            };
            vec![
                message(1, |exchange| exchange.answer.metadata.id ^= 1),
                message(2, |exchange| exchange.rename("other.shop.test")),
                message(3, |_| {}),
                // It has been answered.
                message(4, |_| {}),
            ]
        });
        let question = Exchange::new(NAME, &[]).query.to_vec().expect("a question");
        let came = ask(&setup.pod, server, &[question]);
        world.join().expect("the server");
        assert!(came[0] > 4 * 40, "{came:?}: all of it arrives");
        let targets = [1, 2, 3, 4].map(|host| format!("tcp://198.18.41.{host}:80"));
        let got = setup.pod.connect(&targets.each_ref().map(String::as_str));
        assert_eq!(got, ["denied", "denied", "ok", "denied"], "{server}");
    }
}

#[test]
fn the_programs_read_answers_over_tcp_as_user_space_does() {
    for server in SERVERS {
        each("{egress: [{to: [{domainRegex: ['.*']}]}]}", server, Recorded::where_matched);
    }
}

#[test]
fn and_follow_their_aliases_over_tcp() {
    let yaml = format!("{{egress: [{{to: [{{domainNames: [{}]}}]}}]}}", ALIASES.join(", "));
    each(&yaml, SERVERS[1], Recorded::wherever);
}

/// All that is learned of the corpus, and which of it does not arrive.
fn each(yaml: &str, server: &str, meant: fn(&Recorded) -> Meant) {
    let mut setup = Setup::new();
    setup.enforce_asking(yaml, server);
    let recorded = corpus();
    let messages: Vec<Vec<u8>> = recorded.iter().map(|recorded| recorded.bytes.clone()).collect();
    let lengths: Vec<usize> = messages.iter().map(|message| message.len() + 2).collect();
    let world = serve(&setup.pod, server, move |number, _| vec![messages[number].clone()]);
    let questions: Vec<Vec<u8>> = recorded.iter().map(Recorded::question).collect();
    let came = ask(&setup.pod, server, &questions);
    world.join().expect("the server");
    let mut learned = BTreeSet::new();
    for ((recorded, length), came) in recorded.iter().zip(lengths).zip(came) {
        let meant = meant(recorded);
        let arrives = meant.verdict == Verdict::Allow;
        assert_eq!(came == length, arrives, "{} from {server}: {came} of {length} bytes", recorded.name);
        learned.extend(meant.learned);
    }
    assert_eq!(setup.learned(), learned, "from {server}");
}
