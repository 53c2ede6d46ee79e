//! What outlives the agent.

use std::time::Duration;

use l7egg_node_agent::datapath::Datapath;

use crate::harness::{Setup, policy};

const NAMES: &str = "{egress: [{to: [{domainNames: ['*.fresh.test']}]}]}";

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
    setup.kernel.retire_older(&|_| true).expect("the pod rests on it");
    assert_eq!(setup.pod.connect(&["tcp://198.18.64.7:80", "tcp://198.18.64.8:80"]), ["ok", "denied"]);
    setup.enforce(names);
    assert_eq!(setup.pod.connect(&["tcp://198.18.64.7:80", "tcp://198.18.64.8:80"]), ["ok", "denied"]);
    assert_eq!(setup.pod.connect_one("tcp4://n9.fresh.test:80"), "ok");
    // What the old programs know does not count any more.
    setup.enforce("{egress: [{to: [{cidr: 198.18.64.8/32}]}]}");
    assert_eq!(setup.pod.connect(&["tcp://198.18.64.7:80", "tcp://198.18.64.8:80"]), ["denied", "ok"]);
    setup.kernel.retire_older(&|_| true).expect("nothing rests on it");
    assert_eq!(setup.versions(), [format!("v{}", l7egg_ebpf_common::abi::ABI_VERSION)]);
    assert_eq!(setup.pod.connect(&["tcp://198.18.64.7:80", "tcp://198.18.64.8:80"]), ["denied", "ok"]);
}
