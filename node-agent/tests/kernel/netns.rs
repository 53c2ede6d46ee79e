//! Pods' network namespaces, and programs on their interfaces.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command};

use l7egg_node_agent::kernel::sys;
use l7egg_node_agent::netns::tc::{self, Direction, Method, Program, Rank, Target};
use l7egg_node_agent::netns::{
    FilterWatch, Interface, Netns, PodNetwork, SpecNetwork, find, interfaces, peers,
};

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
fn what_comes_before_a_program_is_seen_and_overtaken() {
    for method in methods() {
        let (pod, bpffs) = (Pod::new(), Bpffs::new());
        let netns = pod.netns();
        let pins = ["own", "others"].map(|whose| bpffs.path().join(whose));
        let [own, others] = pins.each_ref().map(|pins| Target::new(eth0(&pod, &netns).index, &netns, pins));
        let attach = |verdict: &VerdictProgram, name, target| {
            let program = Program { fd: verdict.fd(), name, direction: Direction::Egress };
            netns.run(|| tc::attach(method, program, target)).expect("the pod").expect("an attachment");
        };
        let rank =
            || netns.run(|| tc::rank(NAME, Direction::Egress, own)).expect("the pod").expect("an answer");
        let drop = VerdictProgram::drop();
        assert_eq!(rank(), Rank::Absent, "{method:?}");
        attach(&drop, NAME, own);
        assert_eq!(rank(), Rank::First, "{method:?}");
        for round in ["other", "another", "a third"] {
            attach(&VerdictProgram::overrule(), round, others);
            assert!(matches!(rank(), Rank::Behind(what) if what.contains("program ")), "{method:?}");
            assert_eq!(pod.connect_one(SERVER), "ok", "{method:?}: it is not asked");
            // The same one, or a later agent's.
            let later = VerdictProgram::drop();
            attach(if round == "other" { &drop } else { &later }, NAME, own);
            assert_eq!(rank(), Rank::First, "{method:?}");
            assert_eq!(pod.connect_in_vain(SERVER), "timeout", "{method:?}");
        }
        let detach = |name, target| {
            netns.run(|| tc::detach(name, Direction::Egress, target)).expect("the pod").expect("a removal");
        };
        detach(NAME, own);
        assert_eq!(rank(), Rank::Absent, "{method:?}");
        if method == Method::Clsact {
            let netns = format!("{}p", pod.uid());
            let show = ["-n", &netns, "filter", "show", "dev", "eth0", "egress"];
            let shown = Command::new("tc").args(show).output().expect("tc (iproute2)");
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert_eq!(shown.matches("direct-action").count(), 3, "none of ours is left: {shown}");
        }
        ["other", "another", "a third"].iter().for_each(|other| detach(other, others));
        detach(NAME, own);
        assert!(!qdiscs(&pod, "p").contains("clsact"), "{method:?}");
        assert_eq!(
            [&pins[0], &pins[1]].map(|pins| pins_in(pins)),
            [vec![], Vec::<String>::new()],
            "{method:?}"
        );
    }
}

#[test]
fn a_filter_whose_move_was_broken_off_is_there_once_again() {
    for is_new_in_place in [false, true] {
        let (pod, bpffs) = (Pod::new(), Bpffs::new());
        let (netns, pins) = (pod.netns(), bpffs.path().join("pod"));
        let interface = eth0(&pod, &netns).index;
        let target = Target::new(interface, &netns, &pins);
        let attach = |verdict: &VerdictProgram| {
            let program = Program { fd: verdict.fd(), name: NAME, direction: Direction::Egress };
            netns
                .run(|| tc::attach(Method::Clsact, program, target))
                .expect("the pod")
                .expect("an attachment");
        };
        let tc = |arguments: &[&str]| {
            let output = netns.run(|| Command::new("tc").args(arguments).output());
            let output = output.expect("the pod").expect("tc (iproute2)");
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let handles = || {
            let shown = tc(&["filter", "show", "dev", "eth0", "egress"]);
            let handles = shown.split_whitespace().filter_map(|word| word.strip_prefix("0x"));
            handles.map(|one| u32::from_str_radix(one, 16).expect("a handle")).collect::<Vec<u32>>()
        };
        attach(&VerdictProgram::drop());
        let usual = handles();
        // As one has ended that had a program to put in front, with the older one still behind it or not.
        let next = pins.join(format!("filter-{NAME}{}-new", target.pin_suffix()));
        let newer = VerdictProgram::drop();
        sys::pin(newer.fd(), &next).expect("a pin");
        let (next, spare) = (next.to_string_lossy(), format!("{:#x}", usual[0] ^ 0x0100_0000));
        let whose = ["dev", "eth0", "egress", "protocol", "all", "prio", "1", "handle"];
        let bpf = ["bpf", "object-pinned", &next, "direct-action"];
        tc(&[&["filter", "add"], &whose[..], &[&spare], &bpf[..]].concat());
        if is_new_in_place {
            tc(&[&["filter", "del"], &whose[..], &[&format!("{:#x}", usual[0])], &["bpf"]].concat());
        }
        assert_eq!(handles().len(), 2 - usize::from(is_new_in_place));
        let rank = || netns.run(|| tc::rank(NAME, Direction::Egress, target)).expect("the pod");
        assert_eq!(rank().expect("an answer"), Rank::First);
        if is_new_in_place {
            attach(&VerdictProgram::pass());
            assert_eq!((handles(), rank().expect("an answer")), (usual, Rank::First));
            assert_eq!(pod.connect_one(SERVER), "ok", "by the last one's program");
        }
        netns.run(|| tc::detach(NAME, Direction::Egress, target)).expect("the pod").expect("a removal");
        assert_eq!(rank().expect("an answer"), Rank::Absent);
        assert!(!qdiscs(&pod, "p").contains("clsact"), "none is left");
        assert_eq!(pins_in(&pins), [""; 0]);
    }
}

#[test]
fn a_link_whose_move_was_broken_off_is_there_once_again() {
    if Method::of_this_kernel() == Method::Clsact {
        println!("skipped: this kernel has no tcx");
        return;
    }
    /// `BPF_TCX_EGRESS`.
    const EGRESS: u32 = 47;
    let (pod, bpffs) = (Pod::new(), Bpffs::new());
    let (netns, pins) = (pod.netns(), bpffs.path().join("pod"));
    let interface = eth0(&pod, &netns).index;
    let target = Target::new(interface, &netns, &pins);
    let attach = |verdict: &VerdictProgram| {
        let program = Program { fd: verdict.fd(), name: NAME, direction: Direction::Egress };
        netns.run(|| tc::attach(Method::Tcx, program, target)).expect("the pod").expect("an attachment");
    };
    // As one has ended that had a link in front.
    let break_off = || {
        let drop = VerdictProgram::drop();
        let link = netns.run(|| sys::link_create_first(drop.fd(), interface, EGRESS));
        let next = pins.join(format!("{NAME}{}-new", target.pin_suffix()));
        sys::pin(link.expect("the pod").expect("a link").as_fd(), &next).expect("a pin");
        assert_eq!(pod.connect_in_vain(SERVER), "timeout");
    };
    attach(&VerdictProgram::pass());
    break_off();
    attach(&VerdictProgram::pass());
    assert_eq!(pod.connect_one(SERVER), "ok");
    break_off();
    netns.run(|| tc::detach(NAME, Direction::Egress, target)).expect("the pod").expect("a removal");
    assert_eq!(pod.connect_one(SERVER), "ok");
    assert_eq!(pins_in(&pins), [""; 0]);
}

#[test]
fn changes_of_filters_are_told() {
    let (pod, bpffs) = (Pod::new(), Bpffs::new());
    let (netns, pins) = (pod.netns(), bpffs.path().join("pod"));
    let interface = eth0(&pod, &netns).index;
    let target = Target::new(interface, &netns, &pins);
    let watch = netns.run(FilterWatch::open).expect("the pod").expect("a socket");
    let verdict = VerdictProgram::pass();
    let program = Program { fd: verdict.fd(), name: NAME, direction: Direction::Egress };
    let told = || watch.wait().expect("to hear of it");
    let attach = || {
        netns.run(|| tc::attach(Method::Clsact, program, target)).expect("the pod").expect("an attachment");
    };
    attach();
    assert_eq!(told(), BTreeSet::from([interface]), "its own");
    tc_command(&pod, "filter del dev eth0 egress");
    assert_eq!(told(), BTreeSet::from([interface]), "without its handle");
    attach();
    told();
    tc_command(&pod, "qdisc del dev eth0 clsact");
    assert_eq!(told(), BTreeSet::from([interface]), "with its qdisc");
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
