//! The gate: nothing leaves a pod that no agent has decided about yet, also while there is none.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use l7egg_ebpf_common::abi::{ABI_VERSION, Counter};
use l7egg_node_agent::datapath::Datapath;

use crate::harness::{Link, POD4, Setup, binary};

const OUTSIDE: &str = "tcp://198.18.0.80:80";

fn id(cgroup: &Path) -> u64 {
    fs::metadata(cgroup).expect("a cgroup").ino()
}

/// The cgroup that holds all pods.
fn parent(setup: &Setup) -> PathBuf {
    setup.pod.cgroup().parent().expect("a parent").to_owned()
}

/// A node whose gate was closed when these pods ran.
fn close(setup: &mut Setup, running: &[u64]) {
    let parent = parent(setup);
    setup.kernel.close_gate(&[parent], running).expect("the gate");
}

fn admit(setup: &mut Setup) {
    let pod = id(setup.pod.cgroup());
    setup.kernel.admit(pod).expect("to admit the pod");
}

fn lost(setup: &Setup) -> u64 {
    setup.kernel.counters().expect("the counters")[Counter::Unconfigured as usize]
}

#[test]
fn nothing_leaves_a_pod_that_is_not_admitted_and_nobody_is_refused() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    let targets = [
        OUTSIDE,
        "tcp://[2001:db8:18::80]:80",
        "udp://198.18.0.80:123",
        "udp://198.18.0.53:53",
        "tcp4://n1.fresh.test:80",
    ];
    for _agent in 0..2 {
        let before = lost(&setup);
        let outcomes = setup.pod.connect(&targets);
        assert!(outcomes.iter().all(|outcome| outcome != "ok" && outcome != "denied"), "{outcomes:?}");
        assert!(lost(&setup) >= before + 4, "{before} then {}", lost(&setup));
        // Who comes back finds the pod waiting.
        setup.restart_agent();
        let pod = id(setup.pod.cgroup());
        assert!(setup.kernel.waits_at_gate(pod));
        close(&mut setup, &[pod]);
    }
    admit(&mut setup);
    assert_eq!(setup.pod.connect(&targets[..3]), ["ok"; 3]);
    setup.restart_agent();
    assert!(!setup.kernel.waits_at_gate(id(setup.pod.cgroup())));
    assert_eq!(setup.pod.connect_one(OUTSIDE), "ok");
}

#[test]
fn sockets_of_every_kind_wait() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    let script = "
import errno, socket
def udp():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'leak', ('198.18.0.80', 123))
def raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).sendto(b'\\x08\\0\\xf7\\xff\\0\\0\\0\\0', ('198.18.0.80', 0))
def multipath():
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(('198.18.0.80', 80))
for way in udp, raw, multipath:
    try:
        way()
        print(way.__name__, 'sent')
    except OSError as error:
        print(way.__name__, errno.errorcode[error.errno])
";
    let before = lost(&setup);
    let output = setup.pod.command("python3".as_ref(), &["-c", script]).output().expect("python3");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // A kernel without MPTCP makes no such socket for anybody.
    let multipath = said.lines().find(|line| line.starts_with("multipath")).unwrap_or_default();
    assert!(
        ["multipath EPERM", "multipath EPROTONOSUPPORT", "multipath ENOPROTOOPT"].contains(&multipath),
        "{said}"
    );
    assert!(lost(&setup) >= before + 2, "{said}{} packets", lost(&setup) - before);
}

#[test]
fn a_connection_that_waits_is_made_when_the_pod_is_admitted() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    let mut probe = setup.pod.command(&binary("probe"), &["connect", "--timeout-ms", "20000", OUTSIDE]);
    let asking = std::thread::spawn(move || probe.output().expect("the probe"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while lost(&setup) < 2 {
        assert!(Instant::now() < deadline, "tried only {} times", lost(&setup));
        std::thread::sleep(Duration::from_millis(20));
    }
    let admitted = Instant::now();
    admit(&mut setup);
    let output = asking.join().expect("the probe");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    assert_eq!(report["outcome"], "ok", "{report}");
    println!("connected {:?} after the pod was admitted", admitted.elapsed());
}

#[test]
fn tries_at_the_gate_do_not_count() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    setup.pod.try_tcp(2);
    let mut probe = setup.pod.command(&binary("probe"), &["connect", "--timeout-ms", "60000", OUTSIDE]);
    let asking = std::thread::spawn(move || probe.output().expect("the probe"));
    // Else it were over after three seconds on newer kernels (`tcp_syn_linear_timeouts`), and after one on others.
    std::thread::sleep(Duration::from_secs(8));
    assert!(!asking.is_finished(), "given up while the pod waits");
    // Who comes back holds the pod by its own programs first, and knows later what is for it.
    setup.restart_agent();
    setup.hold();
    admit(&mut setup);
    std::thread::sleep(Duration::from_secs(4));
    assert!(!asking.is_finished(), "given up while the pod is held");
    setup.enforce("{egress: [{to: [{cidr: 198.18.0.80/32}]}]}");
    let output = asking.join().expect("the probe");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    assert_eq!(report["outcome"], "ok", "{report}");
}

#[test]
fn who_is_held_or_enforced_is_held_by_that_alone() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    setup.hold();
    admit(&mut setup);
    assert_eq!(setup.pod.connect_in_vain(OUTSIDE), "timeout");
    setup.enforce("{egress: [{to: [{cidr: 198.18.0.80/32}]}]}");
    assert_eq!(setup.pod.connect(&[OUTSIDE, "tcp://198.18.0.81:80"]), ["ok", "denied"]);
}

#[test]
fn who_ran_before_goes_on_and_what_stays_in_a_pod_is_free() {
    let mut setup = Setup::new();
    let live = setup.pod.hold(OUTSIDE);
    let pod = id(setup.pod.cgroup());
    close(&mut setup, &[pod]);
    assert_eq!(setup.pod.connect_one(OUTSIDE), "ok");
    // A new one beside it, in a class as kubelets have them.
    let new = parent(&setup).join("burstable/pod-new");
    let container = new.join("container");
    fs::create_dir_all(&container).expect("a cgroup");
    let own = "tcp://127.0.0.1:8080";
    let _server = setup.pod.serve(8080, 8080);
    assert_eq!(setup.pod.connect_in(&container, &[OUTSIDE, own]), ["timeout", "ok"]);
    setup.kernel.admit(id(&new)).expect("to admit it");
    assert_eq!(setup.pod.connect_in(&container, &[OUTSIDE, own]), ["ok", "ok"]);
    // Ended, and another one's id is another.
    setup.kernel.retain_admitted(&|id| id == pod);
    assert!(setup.kernel.waits_at_gate(id(&new)));
    assert_eq!(setup.pod.connect_in(&container, &[OUTSIDE]), ["timeout"]);
    assert_eq!(live.end()["outcome"], "ok");
    for cgroup in [container, new.clone(), new.parent().expect("a class").to_owned()] {
        let _ = fs::remove_dir(cgroup);
    }
}

#[test]
fn answers_to_others_wait_too() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    let pod = &setup.pod;
    let mut server = pod.command(&binary("probe"), &["serve", "--tcp", "8080", "--udp", "8080"]);
    let mut server = server.spawn().expect("the probe");
    let own = format!("tcp://{POD4}:8080");
    let deadline = Instant::now() + Duration::from_secs(30);
    while setup.pod.connect_one("tcp://127.0.0.1:8080") != "ok" {
        assert!(Instant::now() < deadline, "the pod's server does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(setup.pod.world_connect(&[&own]), ["timeout"]);
    admit(&mut setup);
    assert_eq!(setup.pod.world_connect(&[&own]), ["ok"]);
    let _ = server.kill();
    let _ = server.wait();
}

#[test]
fn pods_in_the_nodes_network_do_not_wait() {
    let mut setup = Setup::with_link(Link::IsNode);
    close(&mut setup, &[]);
    assert_eq!(setup.pod.connect(&[OUTSIDE, "udp://198.18.0.80:123"]), ["ok", "ok"]);
}

#[test]
fn an_open_gate_leaves_nothing() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    assert_eq!(setup.pod.connect_in_vain(OUTSIDE), "timeout");
    setup.restart_agent();
    setup.kernel.open_gate().expect("to open it");
    assert_eq!(setup.pod.connect_one(OUTSIDE), "ok");
    assert!(!setup.pins("gate").exists());
    // And so does the end of all.
    close(&mut setup, &[]);
    assert_eq!(setup.pod.connect_in_vain(OUTSIDE), "timeout");
    setup.remove_everything();
    assert_eq!(setup.pod.connect_one(OUTSIDE), "ok");
}

#[test]
fn a_gate_that_somebody_takes_away_stands_again_and_admits_nobody_for_that() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    fs::remove_dir_all(setup.bpffs().join(format!("l7egg/v{ABI_VERSION}/gate"))).expect("to take it away");
    setup.kernel.mend(&|_| None).expect("a look");
    let pod = id(setup.pod.cgroup());
    close(&mut setup, &[pod]);
    assert!(setup.kernel.waits_at_gate(pod), "it came while the gate was away, for all that is known");
    assert_eq!(setup.pod.connect_in_vain(OUTSIDE), "timeout");
}

#[test]
fn a_gate_with_a_program_less_is_completed() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    let gate = setup.bpffs().join(format!("l7egg/v{ABI_VERSION}/gate"));
    let place = fs::read_dir(&gate).expect("the gate").flatten().next().expect("where it stands").path();
    fs::remove_file(place.join("gate_patience")).expect("to take a program away");
    setup.restart_agent();
    let pod = id(setup.pod.cgroup());
    assert!(setup.kernel.waits_at_gate(pod));
    close(&mut setup, &[pod]);
    assert!(place.join("gate_patience").exists());
    assert!(setup.kernel.waits_at_gate(pod));
    assert_eq!(setup.pod.connect_in_vain(OUTSIDE), "timeout");
}

#[test]
fn another_versions_gate_is_taken_over() {
    for admitted in [false, true] {
        let mut setup = Setup::new();
        close(&mut setup, &[]);
        if admitted {
            admit(&mut setup);
        }
        setup.become_another_version();
        setup.restart_agent();
        let pod = id(setup.pod.cgroup());
        close(&mut setup, &[pod]);
        assert_eq!(setup.kernel.waits_at_gate(pod), !admitted);
        assert_eq!(setup.pod.connect_one(OUTSIDE), if admitted { "ok" } else { "timeout" });
        admit(&mut setup);
        assert_eq!(setup.pod.connect_one(OUTSIDE), "ok");
    }
}

#[test]
fn a_socket_waits_through_a_change_of_version() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    let mut probe = setup.pod.command(&binary("probe"), &["connect", "--timeout-ms", "30000", OUTSIDE]);
    let asking = std::thread::spawn(move || probe.output().expect("the probe"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while lost(&setup) < 1 {
        assert!(Instant::now() < deadline, "nothing is tried");
        std::thread::sleep(Duration::from_millis(20));
    }
    setup.become_another_version();
    setup.restart_agent();
    let pod = id(setup.pod.cgroup());
    close(&mut setup, &[pod]);
    // TCP tries twice a second.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!asking.is_finished(), "connected before the pod was admitted");
    admit(&mut setup);
    let output = asking.join().expect("the probe");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    assert_eq!(report["outcome"], "ok", "{report}");
}

#[test]
fn who_waits_at_one_of_two_other_versions_gates_waits_on() {
    for is_first_moved_last in [false, true] {
        let mut setup = Setup::new();
        let pod = id(setup.pod.cgroup());
        close(&mut setup, &[pod]);
        setup.become_another_version();
        setup.restart_agent();
        close(&mut setup, &[]);
        setup.move_pins(&format!("l7egg/v{ABI_VERSION}"), "l7egg/v1");
        if is_first_moved_last {
            setup.move_pins("l7egg/v0", "hidden");
            setup.move_pins("hidden", "l7egg/v0");
        }
        setup.restart_agent();
        close(&mut setup, &[pod]);
        assert!(setup.kernel.waits_at_gate(pod), "{is_first_moved_last}");
        admit(&mut setup);
        assert_eq!(setup.pod.connect_one(OUTSIDE), "ok");
    }
}

#[test]
fn another_versions_gate_stays_until_there_is_one_of_this() {
    let mut setup = Setup::new();
    close(&mut setup, &[]);
    setup.become_another_version();
    setup.restart_agent();
    // As where the own one cannot be closed.
    setup.retire_older(true);
    assert_eq!(setup.pod.connect_in_vain(OUTSIDE), "timeout");
    let pod = id(setup.pod.cgroup());
    close(&mut setup, &[pod]);
    setup.retire_older(true);
    assert_eq!(setup.versions(), [format!("v{ABI_VERSION}")]);
    assert_eq!(setup.pod.connect_in_vain(OUTSIDE), "timeout");
}
