//! Calls of connect(2) and sendmsg(2) by a process in a pod's cgroup. Its network leads nowhere, so a call that no hook refuses
//! fails for want of a way there, and no packet is made that another program could judge.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use l7egg_ebpf_common::abi::protocol;
use serde_json::{Value, json};

use super::case::Packet;
use crate::harness::{cgroup2_root, remove_within, unique};

/// Makes the calls of each line. A port is bound once in 64,000 times: what the programs remember of an earlier flow is not asked.
const CALLER: &str = "
import errno, json, socket, sys
port = 1024
for line in sys.stdin:
    said = []
    for number, address, remote in json.loads(line):
        family = socket.AF_INET6 if ':' in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM if number == 6 else socket.SOCK_DGRAM) as s:
            port = port + 1 if port < 65000 else 1025
            s.bind(('', port))
            try:
                s.connect((address, remote)) if number == 6 else s.sendto(b'hello', (address, remote))
                said.append('done')
            except OSError as error:
                said.append(errno.errorcode[error.errno])
    print(json.dumps(said), flush=True)
";

/// The process.
pub struct Calls {
    uid: String,
    cgroup: PathBuf,
    child: Child,
    input: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Calls {
    /// Starts it in a pod, or in a container of one.
    pub fn new(container: &str) -> Self {
        let uid = format!("l7k-{}", unique());
        let cgroup = cgroup2_root().join(format!("{uid}/kubepods/pod{uid}"));
        let inside = cgroup.join(container);
        fs::create_dir_all(&inside).expect("a cgroup");
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec unshare -n python3 -c \"$1\""]);
        command.arg(inside.join("cgroup.procs")).arg(CALLER);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { uid, cgroup, input: child.stdin.take(), child, lines }
    }

    /// Uid of its pod.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Directory of the pod's cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Connects for TCP, sends for UDP; whether each was refused.
    pub fn make(&mut self, packets: &[Packet]) -> Vec<bool> {
        let called =
            |packet: &Packet| json!([packet.protocol, IpAddr::to_string(&packet.address), packet.port]);
        assert!(packets.iter().all(|packet| matches!(packet.protocol, protocol::TCP | protocol::UDP)));
        let line = Value::from(packets.iter().map(called).collect::<Vec<_>>());
        writeln!(self.input.as_mut().expect("its input"), "{line}").expect("to be heard");
        let said = self.lines.next().expect("an answer").expect("a line");
        let said: Vec<String> = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said.len(), packets.len());
        let is_refused = |said: String| match &*said {
            "EPERM" => true,
            // No route, and no address that it could come from.
            "ENETUNREACH" | "EADDRNOTAVAIL" => false,
            other => panic!("a call ended with {other}"),
        };
        said.into_iter().map(is_refused).collect()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
        if !remove_within(self.cgroup.ancestors().nth(2).expect("the node's cgroup"), Duration::from_secs(30))
        {
            eprintln!("cgroup {} cannot be removed", self.cgroup.display());
        }
    }
}
