//! What outlives the agent.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use l7egg_ebpf_common::abi::ABI_VERSION;
use l7egg_node_agent::datapath::{Datapath, Mended};

use crate::harness::{POD4, Setup, fail, is_without_a_pause, policy, run};
use crate::sandbox::sent_raw;

const NAMES: &str = "{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";

fn own_version() -> String {
    format!("v{ABI_VERSION}")
}

/// The change to this version is over: nothing is left of others, the pod is enforced, and uninstalling takes all of it away.
fn assert_converged(mut setup: Setup, what: &str) {
    setup.retire_older(true);
    assert_eq!(setup.versions(), [own_version()], "{what}");
    let programs = |setup: &Setup| -> Vec<String> {
        setup.backstop().into_iter().filter(|name| name != "clsact").collect()
    };
    assert_eq!(programs(&setup), ["entering", "leaving"], "{what}");
    assert_eq!(sent_raw(&setup), ["ARP"], "{what}");
    assert_eq!(
        setup.pod.connect(&["tcp4://n3.fresh.test:80", "tcp://198.18.0.80:80"]),
        ["ok", "denied"],
        "{what}"
    );
    setup.remove_everything();
    assert_eq!(setup.backstop(), [""; 0], "{what}");
    setup.becomes_free();
}

#[test]
fn a_new_agent_takes_over_without_cutting_or_opening_anything() {
    let mut setup = Setup::with_policy(NAMES);
    let held = setup.pod.hold("tcp4://n1.fresh.test:80");
    let before = setup.kernel.enforced().expect("what is enforced");
    setup.restart_agent();
    assert_eq!(setup.kernel.enforced().expect("what is enforced"), before);
    assert_eq!(before[0].policy, policy(NAMES).digest);
    assert_eq!(setup.pod.connect(&["tcp4://n2.fresh.test:80", "tcp://198.18.0.80:80"]), ["ok", "denied"]);
    setup.enforce(NAMES);
    setup.kernel.collect().expect("a collection");
    assert_eq!(setup.pod.connect(&["tcp4://n1.fresh.test:80", "tcp://198.18.0.80:80"]), ["ok", "denied"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(held.end()["outcome"], "ok");
}

#[test]
fn policies_that_no_pod_uses_are_removed_and_their_ids_are_not_used_again() {
    let mut setup = Setup::with_policy(NAMES);
    setup.enforce("{egress: [{to: [{cidr: 198.18.0.0/15}]}]}");
    setup.kernel.collect().expect("a collection");
    setup.enforce(NAMES);
    setup.kernel.collect().expect("a collection");
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp4://n3.fresh.test:80"]), ["denied", "ok"]);
    setup.restart_agent();
    assert_eq!(setup.pod.connect(&["tcp://198.18.0.80:80", "tcp4://n4.fresh.test:80"]), ["denied", "ok"]);
}

#[test]
fn a_cgroup_that_was_made_anew_is_attached_again() {
    let mut setup = Setup::with_policy("{egress: []}");
    let cgroup = setup.pod.cgroup().to_owned();
    std::fs::remove_dir(&cgroup).expect("an empty cgroup");
    std::fs::create_dir(&cgroup).expect("a cgroup");
    assert_eq!(setup.pod.connect_one("tcp://198.18.0.80:80"), "ok");
    setup.enforce("{egress: []}");
    assert_eq!(setup.pod.connect_one("tcp://198.18.0.80:80"), "denied");
}

#[test]
fn what_somebody_takes_away_is_enforced_again() {
    let mut setup = Setup::on_node(NAMES);
    assert_eq!(setup.mend(), Mended::default());
    assert_eq!(setup.pod.connect(&["tcp4://n1.fresh.test:80", "tcp://198.18.0.80:80"]), ["ok", "denied"]);
    // Without tcx: who has made the qdisc of the filters nobody knows any more. It goes with the interface.
    let is_filter = |pin: &PathBuf| !pin.to_string_lossy().contains("/clsact-");
    let (subject, mut believed) = (setup.subject(), setup.believed());
    believed.pins.retain(is_filter);
    let maps = || std::fs::read_dir(setup.pins("maps")).expect("pins").count();
    let maps_before = maps();
    std::fs::remove_dir_all(setup.bpffs().join("l7egg")).expect("to remove all pins");
    // What the kernel does with links that nobody holds it does soon, not at once. Without tcx the backstop stays, and drops.
    let deadline = Instant::now() + Duration::from_secs(10);
    while setup.pod.connect_one("tcp://198.18.0.80:80") == "denied" {
        assert!(Instant::now() < deadline, "nothing is enforced any more");
    }
    let mended = setup.mend();
    let pods = BTreeSet::from([setup.pod.uid().to_owned()]);
    assert_eq!(
        mended,
        Mended { pods: pods.clone(), backstops: pods, maps: maps_before, ..Mended::default() }
    );
    setup.try_cover();
    assert_eq!((setup.subject(), setup.believed()), (subject, believed));
    assert_eq!(setup.pod.connect(&["tcp4://n2.fresh.test:80", "tcp://198.18.0.80:80"]), ["ok", "denied"]);
    assert_eq!(setup.mend(), Mended::default());
    // Another agent finds all of it.
    setup.restart_agent();
    assert_eq!(setup.subject(), subject);
    assert_eq!(setup.pod.connect(&["tcp4://n3.fresh.test:80", "tcp://198.18.0.80:80"]), ["ok", "denied"]);
    // One link of eight is enough.
    std::fs::remove_file(setup.pins("pods").join(setup.pod.uid()).join("egress")).expect("a pin");
    assert_eq!(setup.mend().pods.len(), 1);
    assert_eq!(setup.pod.connect_one("udp://198.18.0.80:123"), "denied");
}

#[test]
fn a_held_pod_whose_programs_are_taken_away_is_held_again() {
    let mut setup = Setup::on_held_node();
    std::fs::remove_dir_all(setup.pins("pods")).expect("to remove all pins");
    assert_eq!(setup.mend().pods.len(), 1);
    assert!(setup.kernel.enforced().expect("what is enforced")[0].held);
    assert_eq!(setup.pod.connect_in_vain("tcp://198.18.0.80:80"), "timeout");
}

#[test]
fn what_cannot_be_put_back_does_not_count_as_enforced_and_is_tried_again() {
    let mut setup = Setup::on_held_node();
    let bpffs = setup.bpffs().to_owned();
    std::fs::remove_dir_all(bpffs.join("l7egg")).expect("to remove all pins");
    // Where it was there is a file system for all kinds of files, and so for no pin.
    run("mount", &["-t", "tmpfs", "none", &bpffs.to_string_lossy()]);
    setup.kernel.mend(&|_| None).expect_err("nothing can be pinned there");
    let enforced = setup.kernel.enforced().expect("what is enforced");
    assert!(!enforced[0].held && enforced[0].policy == [0; 32]);
    run("umount", &[&bpffs.to_string_lossy()]);
    assert_eq!(setup.mend().pods.len(), 1);
    assert!(setup.kernel.enforced().expect("what is enforced")[0].held);
    assert_eq!(setup.pod.connect_in_vain("tcp://198.18.0.80:80"), "timeout");
}

#[test]
fn who_has_another_cgroup_by_now_is_left_to_the_plan() {
    let mut setup = Setup::with_policy("{egress: []}");
    std::fs::remove_dir_all(setup.pins("pods")).expect("to remove all pins");
    assert_eq!(setup.kernel.mend(&|_| Some("/".into())).unwrap_or_else(fail), Mended::default());
    assert_eq!(setup.kernel.enforced().expect("what is enforced")[0].policy, [0; 32]);
    setup.enforce("{egress: []}");
    assert_eq!(setup.pod.connect_one("tcp://198.18.0.80:80"), "denied");
    assert_eq!(setup.mend(), Mended::default());
}

#[test]
fn a_cgroup_that_is_gone_is_told_and_leaves_nothing() {
    let mut setup = Setup::new();
    let nowhere = setup.pod.cgroup().join("nowhere");
    let error =
        setup.kernel.enforce("nobody", &nowhere, &policy("{egress: []}")).expect_err("no such cgroup");
    assert_eq!(error.reason(), "CgroupGone");
    assert!(setup.kernel.enforced().expect("what is enforced").is_empty());
}

#[test]
fn another_version_is_replaced_without_losing_what_pods_have_learned() {
    let names = "{egress: [{to: [{domainNames: ['**.fresh.test']}]}]}";
    let mut setup = Setup::on_node(names);
    assert_eq!(setup.pod.dig(&["n7.fresh.test", "A"]), "198.18.64.7");
    setup.become_another_version();
    // The old programs go on.
    assert_eq!(setup.pod.connect(&["tcp://198.18.64.7:80", "tcp://198.18.64.8:80"]), ["ok", "denied"]);
    setup.restart_agent();
    assert!(setup.kernel.enforced().expect("what is enforced").is_empty(), "its layout is another one");
    setup.retire_older(true);
    assert_eq!(setup.pod.connect(&["tcp://198.18.64.7:80", "tcp://198.18.64.8:80"]), ["ok", "denied"]);
    setup.enforce(names);
    assert_eq!(setup.pod.connect(&["tcp://198.18.64.7:80", "tcp://198.18.64.8:80"]), ["ok", "denied"]);
    assert_eq!(setup.pod.connect_one("tcp4://n9.fresh.test:80"), "ok");
    // What the old programs know does not count any more.
    setup.enforce("{egress: [{to: [{cidr: 198.18.64.8/32}]}]}");
    assert_eq!(setup.pod.connect(&["tcp://198.18.64.7:80", "tcp://198.18.64.8:80"]), ["denied", "ok"]);
    setup.retire_older(true);
    assert_eq!(setup.versions(), [own_version()]);
    assert_eq!(setup.pod.connect(&["tcp://198.18.64.7:80", "tcp://198.18.64.8:80"]), ["denied", "ok"]);
}

#[test]
fn the_backstop_of_another_version_stays_until_the_new_one_is_there() {
    let mut setup = Setup::on_node(NAMES);
    assert_eq!(sent_raw(&setup), ["ARP"]);
    setup.become_another_version();
    setup.restart_agent();
    assert_eq!(sent_raw(&setup), ["ARP"], "by the other version");
    setup.enforce_uncovered(NAMES);
    assert_eq!(sent_raw(&setup), ["ARP"], "in between");
    setup.enforce(NAMES);
    assert_converged(setup, "after all");
}

#[test]
fn live_connections_outlive_a_change_of_version() {
    let mut setup = Setup::on_node(NAMES);
    let _server = setup.pod.serve(8080, 8080);
    let out = setup.pod.hold("tcp4://n1.fresh.test:80");
    let inbound = setup.pod.world_hold(&format!("tcp://{POD4}:8080"));
    // Twice: there, and back again.
    for _change in 0..2 {
        setup.become_another_version();
        setup.restart_agent();
        setup.enforce_uncovered(NAMES);
        std::thread::sleep(Duration::from_millis(300));
        setup.enforce(NAMES);
        assert_eq!(setup.settle(NAMES), 0);
        setup.retire_older(true);
        assert_eq!(setup.versions(), [own_version()]);
        std::thread::sleep(Duration::from_millis(300));
    }
    for held in [out.end(), inbound.end()] {
        assert!(held["outcome"] == "ok" && is_without_a_pause(&held), "{held}");
    }
}

#[test]
fn a_change_of_version_that_was_broken_off_is_continued() {
    // By an agent that ended before it looked at the pod's interfaces.
    let mut setup = Setup::on_node(NAMES);
    setup.become_another_version();
    setup.restart_agent();
    setup.enforce_uncovered(NAMES);
    setup.restart_agent();
    setup.try_cover();
    assert_converged(setup, "its interfaces were not looked at");
    // By one that ended before it took anything of the other version away.
    let mut setup = Setup::on_node(NAMES);
    setup.move_pins(&format!("l7egg/{}", own_version()), "hidden");
    setup.restart_agent();
    setup.enforce(NAMES);
    setup.move_pins("hidden", "l7egg/v0");
    setup.restart_agent();
    setup.try_cover();
    assert_converged(setup, "nothing was taken away");
}

#[test]
fn uninstalling_in_the_middle_of_a_change_of_version_leaves_nothing() {
    for is_newer_moved_last in [false, true] {
        let mut setup = Setup::on_node(NAMES);
        setup.move_pins(&format!("l7egg/{}", own_version()), "hidden");
        setup.restart_agent();
        setup.enforce(NAMES);
        setup.move_pins("hidden", "l7egg/v0");
        if is_newer_moved_last {
            let own = format!("l7egg/{}", own_version());
            setup.move_pins(&own, "hidden");
            setup.move_pins("hidden", &own);
        }
        setup.remove_everything();
        assert_eq!(setup.backstop(), [""; 0], "{is_newer_moved_last}");
        assert!(!setup.bpffs().join("l7egg").exists());
        setup.becomes_free();
    }
}

#[test]
fn two_other_versions_are_replaced_at_once() {
    let mut setup = Setup::on_node(NAMES);
    setup.become_another_version();
    setup.restart_agent();
    setup.enforce_uncovered(NAMES);
    setup.move_pins(&format!("l7egg/{}", own_version()), "l7egg/v1");
    setup.restart_agent();
    setup.enforce(NAMES);
    assert_converged(setup, "before the first change was over");
}

#[test]
fn a_pod_that_ends_during_a_change_of_version_leaves_nothing() {
    let mut setup = Setup::on_node(NAMES);
    setup.become_another_version();
    setup.pod.end_sandbox();
    std::fs::remove_dir(setup.pod.cgroup()).expect("an empty cgroup");
    setup.restart_agent();
    setup.retire_older(false);
    assert_eq!(setup.backstop(), [""; 0]);
    assert_eq!(setup.versions(), [own_version()]);
}

#[test]
fn what_was_half_removed_goes() {
    let mut setup = Setup::on_node(NAMES);
    setup.become_another_version();
    std::fs::remove_dir_all(setup.bpffs().join("l7egg/v0/maps")).expect("the maps' pins");
    setup.restart_agent();
    setup.enforce(NAMES);
    assert_converged(setup, "its maps are gone");
}

#[test]
fn what_a_pod_says_of_its_network_by_now_is_not_believed_by_another_version() {
    let mut setup = Setup::on_node(NAMES);
    let before = setup.believed();
    crate::netns::in_pod(&setup.pod, &["ip", "addr", "add", "10.77.0.99/24", "dev", "eth0"]);
    setup.become_another_version();
    setup.restart_agent();
    setup.enforce(NAMES);
    assert_eq!(setup.believed().addresses, before.addresses);
    assert_eq!(setup.believed().network, before.network);
    let _server = setup.pod.serve(8080, 8080);
    assert_eq!(setup.pod.world_connect(&[&format!("tcp://{POD4}:8080")]), ["ok"]);
    assert_converged(setup, "the same network");
}

#[test]
fn what_containers_have_learned_outlives_a_change_of_version() {
    let mut setup = Setup::with_policy(NAMES);
    setup.divide(&[("app", Some(NAMES)), ("side", None)]);
    setup.pod.enter("app");
    assert_eq!(setup.pod.dig(&["n7.fresh.test", "A"]), "198.18.64.7");
    assert_eq!(setup.pod.connect_one("tcp://198.18.64.7:80"), "ok");
    setup.become_another_version();
    setup.restart_agent();
    setup.divide(&[("app", Some(NAMES)), ("side", None)]);
    setup.try_cover();
    setup.retire_older(true);
    assert_eq!(setup.versions(), [own_version()]);
    assert_eq!(setup.pod.connect(&["tcp://198.18.64.7:80", "tcp://198.18.64.8:80"]), ["ok", "denied"]);
}
