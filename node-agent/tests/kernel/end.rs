//! What is there when l7egg has ended: all of it, or nothing. Told by the kernel, and not only by pins that are gone.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use l7egg_node_agent::datapath::Datapath;
use l7egg_node_agent::shaping::{Cap, CapName};

use crate::harness::{Setup, binary, fail};
use crate::host::{FREE, HOST, Host, OF_HOST, OF_WEB, WEB};
use crate::sandbox::sent_raw;

const NAMES: &str = "{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";

/// How many programs are attached to a cgroup and those below it.
fn attached_to(cgroup: &Path) -> u64 {
    let output = Command::new(binary("probe")).arg("attached").arg(cgroup).output().expect("the probe");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    report["cgroups"].as_u64().expect("a number")
}

/// What the kernel does with links that nobody holds it does soon, not at once.
fn nothing_is_attached_to(cgroup: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while attached_to(cgroup) > 0 {
        assert!(Instant::now() < deadline, "{} programs on {}", attached_to(cgroup), cgroup.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A host with an Egg for itself and one for a unit, both in force; ended as systemd does it.
fn ended_host(on_exit: &[&str]) -> Host {
    let mut host = Host::new();
    host.write("web.yaml", WEB);
    host.write("host.yaml", HOST);
    host.start_with(on_exit);
    host.becomes("web", OF_WEB);
    host.becomes("other", OF_HOST);
    assert!(attached_to(&host.unit("web")) > 0 && attached_to(host.root()) > 0);
    host.stop();
    host
}

fn is_free(host: &Host) {
    for cgroup in [&host.unit("web"), &host.unit("other"), host.root()] {
        nothing_is_attached_to(cgroup);
        assert_eq!(host.outcomes(cgroup), FREE, "{}", cgroup.display());
    }
    assert!(!host.bpffs().join("l7egg").exists());
}

#[test]
fn who_detaches_on_exit_leaves_nothing() {
    is_free(&ended_host(&["--on-exit", "detach"]));
}

#[test]
fn who_keeps_leaves_all_of_it_until_the_command_takes_it_off() {
    for on_exit in [&["--on-exit", "keep"][..], &[]] {
        let host = ended_host(on_exit);
        assert_eq!(host.outcomes(&host.unit("web")), OF_WEB);
        assert_eq!(host.outcomes(&host.unit("other")), OF_HOST);
        let output = host.command(&["detach", "--bpffs"]).arg(host.bpffs()).output().expect("l7egg detach");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("nothing of l7egg is left"), "{output:?}");
        is_free(&host);
    }
}

/// `l7egg-node-agent detach` on the pod's node.
fn detach(setup: &Setup) {
    let mut command = Command::new(binary("l7egg-node-agent"));
    command.args(["detach", "--bpffs"]).arg(setup.bpffs());
    let output = setup.pod.node_netns().run(move || command.output()).expect("the node's network");
    let output = output.expect("l7egg-node-agent");
    assert!(output.status.success(), "{output:?}");
}

/// A limit for the pod, where the kernel has what it takes.
fn limit(setup: &mut Setup) {
    let cap = Cap { name: CapName::Egg { uid: "egg".into() }, bits_per_second: 10_000_000, burst: None };
    let (uid, cgroup) = (setup.pod.uid().to_owned(), setup.pod.cgroup().to_owned());
    match setup.kernel.shape(&uid, &cgroup, &[cap]) {
        Ok(()) => println!("with a bandwidth limit"),
        Err(error) if error.reason() == "NoFq" => println!("without a bandwidth limit: {error}"),
        Err(error) => fail(error),
    }
}

/// Qdiscs of the pod's interface.
fn qdiscs(setup: &Setup) -> String {
    let netns = format!("{}p", setup.pod.uid());
    let output = Command::new("tc").args(["-n", &netns, "qdisc", "show", "dev", "eth0"]).output();
    String::from_utf8_lossy(&output.expect("tc (iproute2)").stdout).into_owned()
}

#[test]
fn the_command_takes_everything_of_a_pod_off_its_node() {
    for is_held in [false, true] {
        let mut setup = if is_held { Setup::on_held_node() } else { Setup::on_node(NAMES) };
        let before = qdiscs(&setup);
        limit(&mut setup);
        if is_held {
            assert_eq!(setup.pod.connect_in_vain("tcp://198.18.0.80:80"), "timeout");
        } else {
            assert_eq!(sent_raw(&setup), ["ARP"]);
            assert_eq!(
                setup.pod.connect(&["tcp4://n1.fresh.test:80", "tcp://198.18.0.80:80"]),
                ["ok", "denied"]
            );
        }
        assert!(attached_to(setup.pod.cgroup()) > 0);
        detach(&setup);
        assert_eq!(setup.backstop(), [""; 0], "held: {is_held}");
        assert_eq!(qdiscs(&setup), before, "held: {is_held}");
        nothing_is_attached_to(setup.pod.cgroup());
        assert!(!setup.bpffs().join("l7egg").exists());
        assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "udp://198.18.0.80:123"]), ["ok", "ok"]);
        // Where nothing is there is nothing to do.
        detach(&setup);
    }
}
