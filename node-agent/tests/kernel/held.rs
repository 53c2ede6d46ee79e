//! Pods that are held: attached before there is a policy for them.

use std::time::{Duration, Instant};

use l7egg_ebpf_common::abi::Counter;
use l7egg_node_agent::datapath::Datapath;
use serde_json::Value;

use crate::harness::{POD4, POD6, Setup, binary, policy, seconds};

const ALLOWED: &str = "{egress: [{to: [{cidr: 198.18.0.80/32}]}]}";

fn lost(setup: &Setup) -> u64 {
    setup.kernel.counters().expect("the counters")[Counter::Unconfigured as usize]
}

#[test]
fn nothing_leaves_a_held_pod_and_nobody_is_refused() {
    let mut setup = Setup::new();
    setup.hold();
    let held = setup.kernel.enforced().expect("what is enforced");
    assert!(held[0].held && held[0].policy == [0; 32]);
    // Not `denied`: programs are to wait, not to give up.
    let targets = [
        "tcp://198.18.0.80:80",
        "tcp://[2001:db8:18::80]:80",
        "udp://198.18.0.80:123",
        "udp://198.18.0.53:53",
        "tcp4://n1.fresh.test:80",
    ];
    let outcomes = setup.pod.connect(&targets);
    assert!(outcomes.iter().all(|outcome| outcome != "ok" && outcome != "denied"), "{outcomes:?}");
    assert!(lost(&setup) >= 4, "{}", lost(&setup));

    setup.kernel.hold(setup.pod.uid(), setup.pod.cgroup()).expect("again");
    setup.enforce(ALLOWED);
    assert!(!setup.kernel.enforced().expect("what is enforced")[0].held);
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp://198.18.0.81:80"]), ["ok", "denied"]);
    setup.kernel.hold(setup.pod.uid(), setup.pod.cgroup()).expect("a pod with a policy keeps it");
    assert_eq!(setup.pod.connect_one("tcp://198.18.0.80:80"), "ok");
}

#[test]
fn a_connection_of_a_held_pod_is_made_soon_after_it_has_its_policy() {
    let mut setup = Setup::new();
    setup.hold();
    setup.pod.be_patient();
    let probe =
        setup.pod.command(&binary("probe"), &["connect", "--timeout-ms", "20000", "tcp://198.18.0.80:80"]);
    let asking = std::thread::spawn(move || {
        let mut probe = probe;
        let output = probe.output().expect("the probe");
        (Instant::now(), serde_json::from_slice::<Value>(&output.stdout).expect("a line of JSON"))
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    // Several times, so that TCP's own pauses between tries would have become long.
    while lost(&setup) < 6 {
        assert!(Instant::now() < deadline, "tried only {} times", lost(&setup));
        std::thread::sleep(Duration::from_millis(20));
    }
    let freed = Instant::now();
    setup.enforce(ALLOWED);
    let (connected, report) = asking.join().expect("the probe");
    assert_eq!(report["outcome"], "ok", "{report}");
    let waited = connected - freed;
    println!("connected {waited:?} after the policy was in force");
    assert!(waited < Duration::from_secs(seconds(4).into()), "{waited:?}");
}

/// The kernel gives up after some tries, and these are half a second apart where a pod is held.
#[test]
fn tries_while_a_pod_is_held_do_not_count() {
    let mut setup = Setup::new();
    setup.hold();
    setup.pod.try_tcp(2);
    let asks = |target: &str| {
        let mut probe = setup.pod.command(&binary("probe"), &["connect", "--timeout-ms", "90000", target]);
        std::thread::spawn(move || probe.output().expect("the probe"))
    };
    let (answered, unanswered) = (asks("tcp://198.18.0.80:80"), asks("tcp://192.0.2.1:80"));
    // Else it were over after three seconds on newer kernels (`tcp_syn_linear_timeouts`), and after one on others.
    std::thread::sleep(Duration::from_secs(8));
    assert!(!answered.is_finished() && !unanswered.is_finished(), "given up while the pod is held");
    setup.enforce("{egress: [{to: [{cidr: 198.18.0.80/32}, {cidr: 192.0.2.1/32}]}]}");
    let freed = Instant::now();
    let outcome = |asking: std::thread::JoinHandle<std::process::Output>| {
        let output = asking.join().expect("the probe");
        serde_json::from_slice::<Value>(&output.stdout).expect("a line of JSON")["outcome"].clone()
    };
    assert_eq!(outcome(answered), "ok");
    // And where nobody answers it ends as soon as ever.
    assert_ne!(outcome(unanswered), "ok");
    println!("nobody answers: given up {:?} after the policy was in force", freed.elapsed());
    assert!(freed.elapsed() < Duration::from_secs(60), "{:?}", freed.elapsed());
}

#[test]
fn what_stays_in_a_held_pod_is_free() {
    let mut setup = Setup::new();
    let _server = setup.pod.serve(8080, 8080);
    setup.hold();
    let own = format!("tcp://{POD4}:8080");
    let outcomes =
        setup.pod.connect(&["tcp://127.0.0.1:8080", "udp://127.0.0.1:8080", &own, "tcp://198.18.0.80:80"]);
    assert_eq!(outcomes, ["ok", "ok", "ok", "timeout"]);
    // Nor do its answers leave.
    assert_eq!(setup.pod.world_connect(&[&own]), ["timeout"]);
    setup.release();
    assert_eq!(setup.pod.world_connect(&[&own]), ["ok"]);
    assert_eq!(setup.pod.connect_one("tcp://198.18.0.80:80"), "ok");
}

#[test]
fn a_pod_stays_held_while_agents_come_and_go() {
    let mut setup = Setup::on_held_node();
    setup.restart_agent();
    let held = setup.kernel.enforced().expect("what is enforced");
    assert!(held[0].held);
    assert_eq!(setup.pod.connect_in_vain("tcp://198.18.0.80:80"), "timeout");
    setup.kernel.collect().expect("a collection");
    setup.enforce(ALLOWED);
    assert_eq!(setup.kernel.enforced().expect("what is enforced")[0].policy, policy(ALLOWED).digest);
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp://198.18.0.81:80"]), ["ok", "denied"]);
}

#[test]
fn frames_do_not_leave_a_held_pod_either() {
    let setup = Setup::on_held_node();
    let sent = lost(&setup);
    let script = format!(
        "
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
ip = bytes.fromhex('45000020000100004011') + b'\\0\\0' + socket.inet_aton('{POD4}') + socket.inet_aton('198.18.0.80')
for _ in range(5): s.send(b'\\xff' * 6 + b'\\2\\0\\0\\0\\0\\1' + b'\\x08\\0' + ip + bytes.fromhex('1f90007b000c0000') + b'leak')
"
    );
    let output = setup.pod.command("python3".as_ref(), &["-c", &script]).output().expect("python3");
    assert!(output.status.success(), "{output:?}");
    assert!(lost(&setup) >= sent + 5, "{} then {}", sent, lost(&setup));
}

#[test]
fn a_pod_that_is_held_no_longer_is_as_free_as_any() {
    let mut setup = Setup::on_held_node();
    assert_eq!(setup.pod.connect_in_vain("tcp://198.18.0.80:80"), "timeout");
    setup.release();
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "udp://198.18.0.80:123"]), ["ok", "ok"]);
}

#[test]
fn a_held_pod_is_found_by_its_neighbours() {
    let setup = Setup::on_held_node();
    for address in [POD4, POD6] {
        let ip = |arguments: &[&str]| {
            let output = setup.pod.in_world("ip".as_ref()).args(arguments).output().expect("ip (iproute2)");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        ip(&["neigh", "flush", "all"]);
        let ping = setup.pod.in_world("ping".as_ref()).args(["-c", "1", "-W", "1", address]).output();
        assert!(!ping.expect("ping").status.success(), "it is held");
        let found = ip(&["neigh", "show", address]);
        assert!(found.contains("lladdr"), "{address}: {found}");
    }
}
