//! A process that tries a way out, and its accomplice in the world.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{POD4, POD6, Pod};
use crate::way::{self, Way};

/// An attacker may take so long; in VMs, whose processors are emulated, too.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is to get out, and to where.
pub struct Target {
    /// Bytes that nothing else sends.
    pub secret: String,
    /// An address that no rule allows.
    pub evil4: std::net::Ipv4Addr,
    /// The same over IPv6.
    pub evil6: std::net::Ipv6Addr,
}

impl Target {
    /// One that no other way has.
    pub fn number(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self {
            secret: format!("l7egg-{number:05}-{:08x}", std::process::id()),
            evil4: std::net::Ipv4Addr::new(198, 19, high, low),
            evil6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0xbad, 0, 0, 1, number),
        }
    }
}

/// A running attacker.
pub struct Attacker {
    child: Child,
    accomplice: Option<Child>,
}

impl Attacker {
    /// Starts it in a pod, in this cgroup.
    pub fn start(way: &Way, pod: &Pod, cgroup: &Path, target: &Target) -> Self {
        let accomplice = way.helped.then(|| {
            let mut command = pod.in_world("python3".as_ref());
            command.arg("-B").arg(way::program()).args(["help", &way.name]);
            spawn(command, pod, cgroup, target)
        });
        // Root without any capability but these.
        let kept: String = way.caps.iter().map(|cap| format!(",+{cap}")).collect();
        let mut command = in_pod(pod, if way.outside { outside(pod) } else { cgroup });
        command.args(["setpriv", "--inh-caps", "-all", "--bounding-set"]);
        command.arg(format!("-all,+net_bind_service{kept}")).args(["python3", "-B"]);
        command.arg(way::program()).args(["run", &way.name]);
        Self { child: spawn(command, pod, cgroup, target), accomplice }
    }

    /// Waits until it has prepared everything. False if it ended before.
    pub fn wait_until_ready(&mut self) -> bool {
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().expect("a pipe");
        BufReader::with_capacity(1, stdout).read_line(&mut line).is_ok() && line.trim() == "ready"
    }

    /// Tells it to go on.
    pub fn go_on(&mut self) {
        let _ = self.child.stdin.as_mut().expect("a pipe").write_all(b"go\n");
    }

    /// Whether it is still at it.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has ended; what it said.
    pub fn end(mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        for child in [Some(&mut self.child), self.accomplice.as_mut()].into_iter().flatten() {
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    let _ = child.kill();
                    panic!("an attacker did not end within {} s", PATIENCE.as_secs());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let mut said = String::new();
        for child in [Some(&mut self.child), self.accomplice.as_mut()].into_iter().flatten() {
            // What it left behind may hold the pipe open; it has been told by then.
            if let Some(mut stderr) = child.stderr.take() {
                let mut text = vec![0; 4000];
                let read = stderr.read(&mut text).unwrap_or(0);
                said += &String::from_utf8_lossy(&text[..read]);
            }
        }
        said
    }
}

/// The cgroup above the pod's, which is no pod's.
pub fn outside(pod: &Pod) -> &Path {
    pod.cgroup().parent().expect("a cgroup above the pod's")
}

/// A command in the pod's network namespace and in a cgroup. Not by `ip netns exec`, which hides the cgroups.
fn in_pod(pod: &Pod, cgroup: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ >\"$0\" && exec nsenter \"$@\""]).arg(cgroup.join("cgroup.procs"));
    command.arg(format!("--net=/run/netns/{}p", pod.uid()));
    command
}

fn spawn(mut command: Command, pod: &Pod, cgroup: &Path, target: &Target) -> Child {
    command
        .env("SECRET", &target.secret)
        .env("EVIL4", target.evil4.to_string())
        .env("EVIL6", target.evil6.to_string())
        .env("POD4", POD4)
        .env("POD6", POD6)
        .env("POD_CGROUP", cgroup)
        .env("OTHER_CGROUP", outside(pod))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("an attacker")
}
