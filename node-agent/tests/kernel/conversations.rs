//! How many connections to name servers a pod has that are read: each takes memory of the kernel's that is not the pod's.

use std::time::{Duration, Instant};

use l7egg_ebpf_common::abi::{CONVERSATIONS_MAX, Counter};
use l7egg_node_agent::datapath::Datapath;

use crate::harness::{Said, Setup, policy};

const NAMES: &str = "{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";

/// Opens so many connections to a resolver, and says how many came about; then closes them, keeping the sockets of the first half.
const OPEN: &str = "
import resource, select, socket, sys
count = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (4 * count, 4 * count))
poll, sockets, open_now = select.poll(), {}, 0
def begin():
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(('198.18.0.53', 53))
    sockets[s.fileno()] = s
    poll.register(s, select.POLLOUT)
for _ in range(count):
    begin()
    for fd, event in poll.poll(20):
        poll.unregister(fd)
        open_now += event == select.POLLOUT
while True:
    ready = poll.poll(700)
    if not ready: break
    for fd, event in ready:
        poll.unregister(fd)
        open_now += event == select.POLLOUT
print(open_now, flush=True)
sys.stdin.readline()
for s in sockets.values():
    # At once, and in the ways that leave the socket behind.
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')
import ctypes
libc = ctypes.CDLL(None)
for number, s in enumerate(list(sockets.values())):
    if number % 2:
        s.close()
    else:
        libc.connect(s.fileno(), b'\\0' * 16, 16)
print('over', flush=True)
sys.stdin.readline()
";

fn counted(setup: &Setup) -> u64 {
    let counters = setup.kernel.counters().expect("the counters");
    counters[Counter::ShareReached as usize]
}

/// The server has much to do with so many connections, where the processor is emulated.
fn soon(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute");
    }
}

#[test]
fn a_pod_has_so_many_and_no_more_until_some_are_over() {
    let mut setup = Setup::with_policy(NAMES);
    for round in 0..2 {
        let before = counted(&setup);
        let many = (CONVERSATIONS_MAX + 40).to_string();
        let mut python = Said::start(setup.pod.command("python3".as_ref(), &["-c", OPEN, &many]));
        assert_eq!(python.next(), CONVERSATIONS_MAX.to_string(), "round {round}");
        assert!(counted(&setup) > before);
        assert_eq!(setup.kernel.collect().expect("to collect").len(), 1, "whose pod it is is told");
        // Over UDP names are asked for as ever.
        soon(|| setup.pod.connect_one(&format!("tcp4://n{round}.fresh.test:80")) == "ok");
        assert_ne!(setup.pod.dig(&["+tcp", "+tries=1", "+timeout=1", "@198.18.0.53", "x.fresh.test"]), "");
        python.go_on();
        assert_eq!(python.next(), "over");
        // Also where sockets are left.
        let asked = format!("n10{round}.fresh.test");
        soon(|| setup.pod.dig(&["+tcp", "@198.18.0.53", &asked]).starts_with("198.18."));
        python.go_on();
    }
    setup.kernel.enforce(setup.pod.uid(), setup.pod.cgroup(), &policy(NAMES)).expect("to enforce");
}
