//! A bandwidth limit that is taken off: what it has delayed still leaves. Needs the `fq` qdisc.

use std::time::{Duration, Instant};

use l7egg_node_agent::datapath::Datapath;
use l7egg_node_agent::shaping::{Cap, CapName};

use crate::harness::{Said, Setup, fail};

const DATAGRAMS: usize = 80;
/// Says how many datagrams have come when none has for two seconds.
const COUNT: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 9009))
print('listening', flush=True)
s.settimeout(30)
count = 0
try:
    while s.recv(2000):
        count += 1
        s.settimeout(2)
except TimeoutError:
    pass
print(count, flush=True)
";
const SEND: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(80): s.sendto(b'x' * 1000, ('10.77.0.1', 9009))
";

#[test]
fn what_a_limit_has_delayed_is_not_lost_with_it() {
    let mut setup = Setup::new();
    let mut process = setup.pod.sleep("600");
    let (uid, cgroup) = (setup.pod.uid().to_owned(), setup.pod.cgroup().to_owned());
    // 80 datagrams take most of a second.
    let cap = Cap { name: CapName::Pod { uid: "pod".into() }, bits_per_second: 1_000_000, burst: None };
    match setup.kernel.shape(&uid, &cgroup, &[cap]) {
        Err(error) if error.reason() == "NoFq" => println!("skipped: {error}"),
        result => {
            result.unwrap_or_else(fail);
            let mut command = setup.pod.in_world("python3".as_ref());
            command.args(["-c", COUNT]);
            let mut arrived = Said::start(command);
            assert_eq!(arrived.next(), "listening");
            let sent = setup.pod.command("python3".as_ref(), &["-c", SEND]).status().expect("python3");
            assert!(sent.success());
            let start = Instant::now();
            // As every pass of the agent does.
            while !setup.kernel.shaped().is_empty() {
                assert!(start.elapsed() < Duration::from_secs(12), "the limit is never taken off");
                setup.kernel.unshape(&uid, Some(&cgroup)).unwrap_or_else(fail);
                std::thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(arrived.next(), DATAGRAMS.to_string());
            let netns = format!("{uid}p");
            let qdiscs = std::process::Command::new("tc").args(["-n", &netns, "qdisc"]).output().expect("tc");
            assert!(!String::from_utf8_lossy(&qdiscs.stdout).contains("fq 6c37:"), "{qdiscs:?}");
        }
    }
    let _ = process.kill();
    let _ = process.wait();
}
