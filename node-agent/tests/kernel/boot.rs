//! `l7egg-node-agent gate`: a node boots, its pods start before its agent, and nothing leaves them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use l7egg_node_agent::datapath::Datapath;

use crate::harness::{Setup, binary, systemd};

const OUTSIDE: [&str; 2] = ["tcp://198.18.0.80:80", "udp://198.18.0.80:123"];
/// Loading the programs takes seconds, and far longer beside many others who do.
const PATIENCE: Duration = Duration::from_secs(180);

/// A node that boots: a tree of cgroups without pods, an empty bpffs, and the gate's unit.
struct Boot {
    setup: Setup,
    node: PathBuf,
}

impl Boot {
    fn new() -> Self {
        let setup = Setup::new();
        setup.remove_everything();
        let node = setup.pod.cgroup().ancestors().nth(2).expect("the node's cgroup").join("boots");
        fs::create_dir(&node).expect("a cgroup");
        Self { setup, node }
    }

    /// Starts the unit and waits until systemd would start the kubelet.
    fn start(&self) -> Child {
        let socket = self.setup.bpffs().with_extension("notify");
        let _ = fs::remove_file(&socket);
        let ready = UnixDatagram::bind(&socket).expect("a socket");
        ready.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut gate = Command::new(binary("l7egg-node-agent"));
        gate.arg("gate").arg("--bpffs").arg(self.setup.bpffs()).arg("--cgroup-root").arg(&self.node);
        let gate =
            gate.env("NOTIFY_SOCKET", &socket).stdout(Stdio::piped()).spawn().expect("the agent's program");
        let mut said = [0; 16];
        let len = ready.recv(&mut said).expect("to be told that the gate is ready");
        assert_eq!(&said[..len], b"READY=1");
        fs::remove_file(&socket).expect("to remove the socket");
        gate
    }

    /// Makes the cgroup of a container of a new pod, and the one that holds all pods where there is none yet.
    fn pod(&self, uid: &str) -> PathBuf {
        let container = self.node.join(format!("kubepods/burstable/pod{uid}/container"));
        fs::create_dir_all(&container).expect("a cgroup");
        container
    }
}

fn id(container: &Path) -> u64 {
    fs::metadata(container.parent().expect("a pod")).expect("a cgroup").ino()
}

fn ends(mut gate: Child) -> String {
    let deadline = Instant::now() + PATIENCE;
    while gate.try_wait().expect("the process").is_none() {
        assert!(Instant::now() < deadline, "the gate is not closed");
        std::thread::sleep(Duration::from_millis(5));
    }
    let lines = BufReader::new(gate.stdout.take().expect("its output")).lines();
    let said = lines.map_while(Result::ok).last().unwrap_or_default();
    assert!(gate.wait().expect("the process").success(), "{said}");
    said
}

#[test]
fn what_starts_before_the_agent_waits_for_it() {
    let mut boot = Boot::new();
    let mut gate = boot.start();
    std::thread::sleep(Duration::from_millis(200));
    assert!(gate.try_wait().expect("the process").is_none(), "there is nothing yet for a gate to stand at");
    let container = boot.pod("0f3a2b1c-1111-2222-3333-444455556666");
    let said = ends(gate);
    assert!(said.contains("kubepods"), "{said}");
    let outcomes = boot.setup.pod.connect_in(&container, &OUTSIDE);
    assert!(outcomes.iter().all(|outcome| outcome == "timeout"), "{outcomes:?}");

    // The agent finds it waiting.
    boot.setup.restart_agent();
    assert!(boot.setup.kernel.waits_at_gate(id(&container)));
    boot.setup.kernel.close_gate(&[boot.node.join("kubepods")], &[id(&container)]).expect("the gate");
    assert_eq!(boot.setup.pod.connect_in(&container, &OUTSIDE), ["timeout"; 2]);
    boot.setup.kernel.admit(id(&container)).expect("to admit it");
    assert_eq!(boot.setup.pod.connect_in(&container, &OUTSIDE), ["ok"; 2]);
}

#[test]
fn who_runs_already_goes_on() {
    let boot = Boot::new();
    let before = boot.pod("0f3a2b1c-1111-2222-3333-444455556666");
    println!("{}", ends(boot.start()));
    let new = boot.pod("aaaaaaaa-1111-2222-3333-444455556666");
    assert_eq!(boot.setup.pod.connect_in(&before, &OUTSIDE), ["ok"; 2]);
    assert_eq!(boot.setup.pod.connect_in(&new, &OUTSIDE), ["timeout"; 2]);
    boot.setup.remove_everything();
}

#[test]
fn where_an_agent_has_been_it_decides() {
    let mut boot = Boot::new();
    boot.setup.restart_agent();
    let container = boot.pod("0f3a2b1c-1111-2222-3333-444455556666");
    let said = ends(boot.start());
    assert!(said.contains("an agent"), "{said}");
    assert_eq!(boot.setup.pod.connect_in(&container, &OUTSIDE), ["ok"; 2]);
}

/// The unit, as it is installed, and systemd itself.
#[test]
fn systemd_closes_the_gate_before_the_kubelet_starts() {
    let Some(said) = systemd::boot("boot.sh", &[&binary("l7egg-node-agent")]) else { return };
    for line in [
        "elsewhere: 10 of 10 arrived",
        "the gate is active as the kubelet starts",
        "in a pod: 0 of 10 arrived",
        "the end",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}
