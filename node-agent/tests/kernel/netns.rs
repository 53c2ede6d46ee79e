//! Pods' network namespaces, and programs on their interfaces.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use l7egg_node_agent::netns::tc::{self, Direction, Method, Program, Target};
use l7egg_node_agent::netns::{Interface, Netns, PodNetwork, SpecNetwork, find, interfaces, peers};

use crate::harness::{Bpffs, Pod, VerdictProgram};

const SERVER: &str = "tcp://198.18.0.80:80";
const NAME: &str = "verdict";

#[test]
fn a_pods_namespace_is_that_of_its_processes() {
    let pod = Pod::new();
    let host = Netns::current().expect("the test's namespace");
    assert!(find(pod.cgroup(), &host, SpecNetwork::Own).expect("a cgroup").is_none());
    let container = pod.cgroup().join("container");
    fs::create_dir(&container).expect("a cgroup");
    let mut process = sleeping(&pod);
    fs::write(container.join("cgroup.procs"), process.id().to_string()).expect("a move");
    let found = find(pod.cgroup(), &host, SpecNetwork::Own).expect("a cgroup");
    assert!(matches!(found, Some(PodNetwork::Own { netns, .. }) if netns.id() == pod.netns().id()));
    // A younger process in another namespace changes nothing; alone, it is the host's network.
    let mut in_host = Command::new("sleep").arg("60").spawn().expect("sleep");
    fs::write(pod.cgroup().join("cgroup.procs"), in_host.id().to_string()).expect("a move");
    assert!(matches!(
        find(pod.cgroup(), &host, SpecNetwork::Own).expect("a cgroup"),
        Some(PodNetwork::Own { .. })
    ));
    end(&mut process);
    assert!(matches!(find(pod.cgroup(), &host, SpecNetwork::Own).expect("a cgroup"), Some(PodNetwork::Host)));
    end(&mut in_host);
    let _ = fs::remove_dir(&container);
}

#[test]
fn interfaces_and_their_other_ends() {
    let pod = Pod::new();
    let world = pod.world_netns();
    let outside = world.run(|| interfaces(&world)).expect("the world").expect("its interfaces");
    let inside = eth0(&pod, &world);
    assert_eq!((inside.kind.as_str(), inside.mtu, inside.up, inside.loopback), ("veth", 1500, true, false));
    let peer = outside.iter().find(|interface| interface.name == "eth0").expect("the other end");
    assert_eq!((inside.host_peer, inside.given), (Some(peer.index), true));
    // Seen from a host that has nothing to do with it.
    let inside = eth0(&pod, &Netns::current().expect("the test's namespace"));
    assert_eq!((inside.host_peer, inside.given), (None, false));
    let all = pod.netns().run(|| interfaces(&world)).expect("the pod").expect("its interfaces");
    assert!(all.iter().any(|interface| interface.loopback && interface.name == "lo"));
}

#[test]
fn a_program_on_the_pods_interface() {
    for method in methods() {
        let (pod, bpffs) = (Pod::new(), Bpffs::new());
        let pins = bpffs.path().join("pod");
        let netns = pod.netns();
        let interface = eth0(&pod, &netns).index;
        let target = Target::new(interface, &netns, &pins);
        let attach = |verdict: &VerdictProgram| {
            let program = Program { fd: verdict.fd(), name: NAME, direction: Direction::Egress };
            netns.run(|| tc::attach(method, program, target)).expect("the pod").expect("an attachment");
        };
        let attached = || {
            netns
                .run(|| tc::is_attached(NAME, Direction::Egress, target))
                .expect("the pod")
                .expect("an answer")
        };
        assert!(!attached());
        attach(&VerdictProgram::drop());
        assert!(attached(), "{method:?}");
        assert_eq!(pod.connect_in_vain(SERVER), "timeout", "{method:?}");
        // Another agent's program takes its place, and none is left beside it.
        attach(&VerdictProgram::pass());
        attach(&VerdictProgram::pass());
        assert_eq!(pod.connect_one(SERVER), "ok", "{method:?}");
        attach(&VerdictProgram::drop());
        assert_eq!(pod.connect_in_vain(SERVER), "timeout", "{method:?}");
        for _ in 0..2 {
            netns.run(|| tc::detach(NAME, Direction::Egress, target)).expect("the pod").expect("a removal");
        }
        assert!(!attached());
        assert_eq!(pod.connect_one(SERVER), "ok", "{method:?}");
        assert!(!qdiscs(&pod, "p").contains("clsact"), "{method:?}");
        assert_eq!(pins_in(&pins), [""; 0], "{method:?}");
    }
}

#[test]
fn a_qdisc_and_filters_of_others_stay() {
    let (pod, bpffs) = (Pod::new(), Bpffs::new());
    let netns = pod.netns();
    let interface = eth0(&pod, &netns).index;
    let pins = bpffs.path().join("pod");
    let target = Target::new(interface, &netns, &pins);
    let verdict = VerdictProgram::drop();
    let program = Program { fd: verdict.fd(), name: NAME, direction: Direction::Egress };
    let attach = || {
        netns.run(|| tc::attach(Method::Clsact, program, target)).expect("the pod").expect("an attachment")
    };
    let detach =
        || netns.run(|| tc::detach(NAME, Direction::Egress, target)).expect("the pod").expect("a removal");

    tc_command(&pod, "qdisc add dev eth0 clsact");
    attach();
    detach();
    assert!(qdiscs(&pod, "p").contains("clsact"));
    tc_command(&pod, "qdisc del dev eth0 clsact");

    // Made by us, but in use by another meanwhile.
    attach();
    let elsewhere = bpffs.path().join("elsewhere");
    let others = Target::new(interface, &netns, &elsewhere);
    let pass = VerdictProgram::pass();
    let other = Program { fd: pass.fd(), name: "other", direction: Direction::Ingress };
    netns.run(|| tc::attach(Method::Clsact, other, others)).expect("the pod").expect("an attachment");
    detach();
    assert!(qdiscs(&pod, "p").contains("clsact"));
    assert_eq!(pod.connect_one(SERVER), "ok");
    netns.run(|| tc::detach("other", Direction::Ingress, others)).expect("the pod").expect("a removal");
    attach();
    assert_eq!(pod.connect_in_vain(SERVER), "timeout");
    detach();
    assert!(!qdiscs(&pod, "p").contains("clsact"));
}

#[test]
fn a_filter_that_another_has_replaced_is_not_ones_own_any_more() {
    let (pod, bpffs) = (Pod::new(), Bpffs::new());
    let netns = pod.netns();
    let interface = eth0(&pod, &netns).index;
    let pins = ["older", "newer"].map(|version| bpffs.path().join(version));
    let [older, newer] = pins.each_ref().map(|pins| Target::new(interface, &netns, pins));
    let attach = |verdict: &VerdictProgram, target| {
        let program = Program { fd: verdict.fd(), name: NAME, direction: Direction::Egress };
        netns.run(|| tc::attach(Method::Clsact, program, target)).expect("the pod").expect("an attachment");
    };
    let detach = |target| {
        netns.run(|| tc::detach(NAME, Direction::Egress, target)).expect("the pod").expect("a removal");
    };
    attach(&VerdictProgram::pass(), older);
    attach(&VerdictProgram::drop(), newer);
    detach(older);
    assert_eq!(pod.connect_in_vain(SERVER), "timeout");
    detach(newer);
    assert_eq!(pod.connect_one(SERVER), "ok");
}

#[test]
fn the_hosts_side_of_every_interface_of_a_pod() {
    for method in methods() {
        let (pod, bpffs) = (Pod::new(), Bpffs::new());
        let (netns, host) = (pod.netns(), pod.world_netns());
        let pins = bpffs.path().join("host");
        let attach = |verdict: &VerdictProgram| {
            let program = Program { fd: verdict.fd(), name: NAME, direction: Direction::Ingress };
            host.run(|| peers::attach(method, program, &netns, &host, &pins))
                .expect("the host")
                .expect("an attachment")
        };
        let coverage = attach(&VerdictProgram::drop());
        assert!(coverage.is_complete(), "{method:?} {coverage:?}");
        assert_eq!(pod.connect_in_vain(SERVER), "timeout", "{method:?}");
        assert!(attach(&VerdictProgram::pass()).is_complete());
        assert_eq!(pod.connect_one(SERVER), "ok", "{method:?}");
        // One that does not lead to the host is told once it is up; a second wire is covered.
        in_pod(&pod, &["ip", "link", "add", "other", "type", "veth", "peer", "name", "inner"]);
        assert!(attach(&VerdictProgram::pass()).is_complete());
        in_pod(&pod, &["ip", "link", "set", "other", "up"]);
        let coverage = attach(&VerdictProgram::pass());
        assert!(!coverage.is_complete());
        assert_eq!(coverage.uncovered[0].name, "other");
        let world = format!("/run/netns/{}w", pod.uid());
        in_pod(
            &pod,
            &["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "second", "netns", &world],
        );
        assert_eq!(attach(&VerdictProgram::pass()).covered.len(), 2);
        // Gone with its interface.
        in_pod(&pod, &["ip", "link", "del", "eth1"]);
        let before = pins_in(&pins).len();
        assert_eq!(attach(&VerdictProgram::drop()).covered.len(), 1);
        assert!(pins_in(&pins).len() < before, "{method:?}");
        assert_eq!(pod.connect_in_vain(SERVER), "timeout", "{method:?}");

        let verdict = VerdictProgram::pass();
        let program = Program { fd: verdict.fd(), name: NAME, direction: Direction::Ingress };
        host.run(|| peers::detach(program, &host, &pins)).expect("the host").expect("a removal");
        assert_eq!(pod.connect_one(SERVER), "ok", "{method:?}");
        assert!(!qdiscs(&pod, "w").contains("clsact"), "{method:?}");
        assert!(!pins.exists());
    }
}

#[test]
fn a_namespace_cannot_be_entered_by_what_is_none() {
    let error = Netns::open(Path::new("/proc/0/ns/net")).expect_err("no process 0");
    assert!(!error.is_permission());
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = Netns::open(file.path()).expect("a file").run(|| ()).expect_err("no namespace");
    assert!(error.to_string().contains("SYS_ADMIN"), "{error}");
}

/// Both ways, where the kernel has both.
fn methods() -> Vec<Method> {
    match Method::of_this_kernel() {
        Method::Tcx => vec![Method::Tcx, Method::Clsact],
        Method::Clsact => vec![Method::Clsact],
    }
}

fn eth0(pod: &Pod, host: &Netns) -> Interface {
    let all = pod.netns().run(|| interfaces(host)).expect("the pod").expect("its interfaces");
    all.into_iter().find(|interface| interface.name == "eth0").expect("eth0")
}

fn sleeping(pod: &Pod) -> Child {
    let child = pod.sleep("60");
    let procs = fs::read_to_string(pod.cgroup().join("cgroup.procs")).expect("the cgroup");
    assert!(procs.contains(&child.id().to_string()));
    child
}

fn end(child: &mut Child) {
    child.kill().expect("a signal");
    child.wait().expect("its end");
}

/// Runs a command in a pod, as root.
pub fn in_pod(pod: &Pod, command: &[&str]) {
    let status = pod.command(command[0].as_ref(), &command[1..]).status().expect("a command");
    assert!(status.success(), "{command:?}");
}

fn tc_command(pod: &Pod, arguments: &str) {
    let arguments: Vec<&str> = std::iter::once("tc").chain(arguments.split(' ')).collect();
    in_pod(pod, &arguments);
}

fn qdiscs(pod: &Pod, side: &str) -> String {
    let netns = format!("{}{side}", pod.uid());
    let output = Command::new("tc").args(["-n", &netns, "qdisc"]).output().expect("tc (iproute2)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn pins_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the pins");
    entries.map(|entry| entry.expect("a pin").file_name().to_string_lossy().into_owned()).collect()
}
