//! Somebody detaches programs and leaves their pins: `bpftool link detach`, or a CNI plugin that makes a qdisc anew.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use l7egg_node_agent::datapath::{Datapath, Mended};
use l7egg_node_agent::kernel::sys;
use l7egg_node_agent::netns::tc::Method;

use crate::harness::{Setup, fail, run};
use crate::sandbox::sent_raw;

const OUTSIDE: &str = "udp://198.18.0.80:123";

fn detach(pin: &Path) {
    let link = sys::open_pinned(pin).expect("a pin");
    sys::link_detach(link.as_fd()).expect("to detach it");
}

#[test]
fn a_pod_is_enforced_again_all_others_too() {
    let mut setup = Setup::on_node("{egress: []}");
    detach(&setup.pins("pods").join(setup.pod.uid()).join("egress"));
    detach(&setup.pins("pods").join(setup.pod.uid()).join("sendmsg4"));
    let pods = BTreeSet::from([setup.pod.uid().to_owned()]);
    assert_eq!(setup.mend(), Mended { pods, ..Mended::default() });
    assert_eq!(setup.pod.connect_one(OUTSIDE), "denied");
    assert_eq!(setup.mend(), Mended::default());
}

#[test]
fn a_pod_that_has_ended_is_not_missed() {
    let mut setup = Setup::with_policy("{egress: []}");
    let cgroup = setup.pod.cgroup().to_owned();
    std::fs::remove_dir(&cgroup).expect("an empty cgroup");
    assert_eq!(setup.mend(), Mended::default());
    std::fs::create_dir(&cgroup).expect("a cgroup");
    assert_eq!(setup.mend(), Mended::default(), "the plan sees to it");
}

#[test]
fn a_pod_that_ends_while_an_agent_starts_is_gone_and_no_error() {
    let mut setup = Setup::with_policy("{egress: []}");
    let link = sys::open_pinned(&setup.pins("pods").join(setup.pod.uid()).join("egress")).expect("a pin");
    // As an agent has opened it before the cgroup goes.
    assert_ne!(sys::link_cgroup(link.as_fd()).expect("to ask about it"), 0);
    let program = setup.kernel.program("egress").expect("a program").fd().expect("it is loaded");
    let program = program.try_clone().expect("a descriptor");
    assert!(sys::link_replace(link.as_fd(), program.as_fd()).expect("to replace it"));
    let cgroup = setup.pod.cgroup().to_owned();
    std::fs::remove_dir(&cgroup).expect("an empty cgroup");
    // The kernel takes its time for what was in it.
    let is_there = || sys::link_replace(link.as_fd(), program.as_fd()).expect("no error");
    let start = Instant::now();
    while is_there() {
        assert!(start.elapsed() < Duration::from_secs(5), "its link is on it still");
        std::thread::sleep(Duration::from_millis(20));
    }
    setup.restart_agent();
    assert_eq!(setup.kernel.enforced().expect("what is enforced"), []);
    std::fs::create_dir(&cgroup).expect("a cgroup");
}

#[test]
fn the_backstop_is_put_back() {
    let mut setup = Setup::on_node("{egress: []}");
    assert_eq!(sent_raw(&setup), ["ARP"]);
    assert_eq!(setup.mend(), Mended::default());
    match Method::of_this_kernel() {
        Method::Tcx => {
            let pins = setup.pins("interfaces").join(setup.pod.uid()).join("leaving");
            std::fs::read_dir(pins).expect("pins").for_each(|pin| detach(&pin.expect("a pin").path()));
        }
        Method::Clsact => {
            let removed = setup.pod.node_netns().run(|| run("tc", &["qdisc", "del", "dev", "pod", "clsact"]));
            removed.expect("the node's namespace");
        }
    }
    assert_ne!(sent_raw(&setup), ["ARP"]);
    let backstops = BTreeSet::from([setup.pod.uid().to_owned()]);
    assert_eq!(setup.mend(), Mended { backstops, ..Mended::default() });
    setup.try_cover();
    assert_eq!(sent_raw(&setup), ["ARP"]);
    assert_eq!(setup.mend(), Mended::default());
}

#[test]
fn the_gate_is_closed_again() {
    let mut setup = Setup::new();
    let parent = setup.pod.cgroup().parent().expect("a parent").to_owned();
    let id = parent.metadata().expect("a cgroup").ino();
    setup.kernel.close_gate(std::slice::from_ref(&parent), &[]).expect("the gate");
    detach(&setup.pins("gate").join(id.to_string()).join("gate_egress"));
    assert_eq!(setup.pod.connect_one(OUTSIDE), "ok");
    setup.mend();
    setup.kernel.close_gate(&[parent], &[]).unwrap_or_else(fail);
    assert_eq!(setup.pod.connect_in_vain(OUTSIDE), "timeout");
}
