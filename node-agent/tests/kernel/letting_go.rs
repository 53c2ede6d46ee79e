//! Whoever is let go was allowed what it does, and is not cut for a moment.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use l7egg_ebpf_common::abi::Counter;
use l7egg_node_agent::datapath::Datapath;

use crate::harness::{Link, Setup};

const ALLOWED: &str = "{egress: [{to: [{cidr: 198.18.0.0/15}]}]}";

/// Sends without a pause, on a socket that is connected and on new ones, until its input ends; says then how often it was refused.
const SEND: &str = "
import select, socket, sys, time
to, refused, others = ('198.18.0.80', 123), 0, {}
connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
connected.connect(to)
print('sending', flush=True)
while not select.select([sys.stdin], [], [], 0.0002)[0]:
    for send in (lambda: connected.send(b'x'), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', to)):
        try:
            send()
        except PermissionError:
            refused += 1
        except OSError as error:
            others[error.errno] = others.get(error.errno, 0) + 1
print(refused, flush=True)
";

struct Sender {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Sender {
    fn start(setup: &Setup) -> Self {
        let mut command = setup.pod.command("python3".as_ref(), &["-c", SEND]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        output.read_line(&mut String::new()).expect("a line");
        Self { child, output }
    }

    /// How many sends were refused.
    fn end(mut self) -> u32 {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        let _ = self.child.wait();
        line.trim().parse().expect("a number")
    }
}

fn lost(setup: &Setup) -> u64 {
    let counters = setup.kernel.counters().expect("the counters");
    counters[Counter::Unconfigured as usize] + counters[Counter::Denied as usize]
}

#[test]
fn who_is_let_go_loses_nothing() {
    for link in [Link::Direct, Link::ByNode] {
        let mut setup = Setup::with_link(link);
        setup.enforce(ALLOWED);
        let sender = Sender::start(&setup);
        for _ in 0..5 {
            setup.enforce(ALLOWED);
            std::thread::sleep(Duration::from_millis(30));
            setup.release();
            std::thread::sleep(Duration::from_millis(60));
        }
        assert_eq!((sender.end(), lost(&setup)), (0, 0));
    }
}

#[test]
fn a_gate_that_is_opened_loses_nothing() {
    let mut setup = Setup::new();
    let parent = setup.pod.cgroup().parent().expect("a parent").to_owned();
    let pod = setup.pod.cgroup().metadata().expect("a cgroup").ino();
    let sender = Sender::start(&setup);
    for _ in 0..5 {
        setup.kernel.close_gate(std::slice::from_ref(&parent), &[pod]).expect("the gate");
        std::thread::sleep(Duration::from_millis(30));
        setup.kernel.open_gate().expect("to open it");
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!((sender.end(), lost(&setup)), (0, 0));
}
