//! From plain views to operations.

use std::time::Instant;

use super::*;
use crate::cgroup::Container;
use crate::datapath::{EnforcedContainer, Wanted};
use crate::testing::{assignment, cgroups_of, desired_of, enforced_pod};

fn none() -> BTreeMap<String, HeldPod> {
    BTreeMap::new()
}

fn held(uids: &[&str]) -> BTreeMap<String, HeldPod> {
    let pod = || HeldPod { pod: None, message: String::new(), long: false };
    uids.iter().map(|uid| ((*uid).to_owned(), pod())).collect()
}

fn summary(operations: &[Operation]) -> Vec<String> {
    let one = |operation: &Operation| match operation {
        Operation::Hold { uid, .. } => format!("hold {uid}"),
        Operation::Enforce { uid, containers: Some(containers), .. } => {
            let wanted = |one: &ContainerPolicy| match &one.wanted {
                Wanted::Free => format!("{} free", one.name),
                Wanted::Policy(policy) => format!("{} {}", one.name, policy.cidrs.len()),
                Wanted::AsBefore => format!("{} as before", one.name),
            };
            let containers: Vec<String> = containers.iter().map(wanted).collect();
            format!("divide {uid}: {}", containers.join(", "))
        }
        Operation::Enforce { uid, first: true, .. } => format!("first {uid}"),
        Operation::Enforce { uid, .. } => format!("change {uid}"),
        Operation::Shape { uid, caps, .. } => format!("shape {uid} {}", caps[0].bits_per_second),
        Operation::Unshape { uid, cgroup } => format!("unshape {uid} {}", cgroup.is_some()),
        Operation::Release { uid, why } => format!("release {uid} {why:?}"),
    };
    operations.iter().map(one).collect()
}

const NEVER: Known<'_> = Known {
    until_end: &|_| false,
    is_left_alone: &|_| false,
    is_in_older: &|_| false,
    is_new_of_cluster: &|_, _| false,
};

#[test]
fn nothing_to_do_when_nothing_differs() {
    let desired = desired_of(&[assignment("a").allow("10.0.0.0/8").pod("p1")]);
    let digest = desired.pods["p1"].policy.as_ref().unwrap().digest;
    let cgroups = cgroups_of(&["p1", "other"]);
    let enforced = [enforced_pod("p1", cgroups.pods["p1"].id, digest)];
    assert!(plan(&desired, &none(), &enforced, &[], &cgroups, NEVER).is_empty());
}

#[test]
fn uncovered_pods_come_first_and_releases_last() {
    let desired = desired_of(&[assignment("a").pod("p1").pod("p2").pod("p3")]);
    let cgroups = cgroups_of(&["p0", "p1", "p2"]);
    let enforced = [
        enforced_pod("p0", cgroups.pods["p0"].id, [1; 32]),
        enforced_pod("p1", cgroups.pods["p1"].id, [1; 32]),
    ];
    let operations = plan(&desired, &none(), &enforced, &[], &cgroups, NEVER);
    // p3 has no cgroup yet: nothing can be done.
    assert_eq!(summary(&operations), ["first p2", "change p1", "release p0 NoEgg"]);
}

#[test]
fn pods_are_held_until_they_have_a_policy_or_are_not_to_be() {
    let desired = desired_of(&[assignment("a").pod("assigned")]);
    let cgroups = cgroups_of(&["new", "assigned", "held", "unheld", "again"]);
    let pod = |uid: &str, id| EnforcedPod { held: true, ..enforced_pod(uid, id, [0; 32]) };
    let here = |uid: &str| pod(uid, cgroups.pods[uid].id);
    let enforced = [here("assigned"), here("held"), here("unheld"), pod("again", 7)];
    let operations = plan(&desired, &held(&["new", "held", "again"]), &enforced, &[], &cgroups, NEVER);
    assert_eq!(summary(&operations), ["first assigned", "hold again", "hold new", "release unheld NotHeld"]);
    // Also where the view is incomplete: that a pod is held was the agent's own doing.
    let unsure = Desired { knows_all_pods: false, ..Desired::default() };
    let operations = plan(&unsure, &held(&["held"]), &enforced[1..3], &[], &cgroups, NEVER);
    assert_eq!(summary(&operations), ["release unheld NotHeld"]);
}

#[test]
fn a_cgroup_made_anew_is_enforced_anew() {
    let desired = desired_of(&[assignment("a").pod("p1")]);
    let digest = desired.pods["p1"].policy.as_ref().unwrap().digest;
    let operations =
        plan(&desired, &none(), &[enforced_pod("p1", 99_999, digest)], &[], &cgroups_of(&["p1"]), NEVER);
    assert_eq!(summary(&operations), ["first p1"]);
}

#[test]
fn an_ended_pod_is_let_go_even_if_assignments_still_name_it() {
    let desired = desired_of(&[assignment("a").pod("p1")]);
    let enforced = [enforced_pod("p1", 7, [1; 32])];
    assert_eq!(
        summary(&plan(&desired, &none(), &enforced, &[], &cgroups_of(&[]), NEVER)),
        ["release p1 Ended"]
    );
}

#[test]
fn absence_proves_nothing_while_the_view_is_incomplete() {
    let cgroups = cgroups_of(&["p1"]);
    let enforced = [enforced_pod("p1", cgroups.pods["p1"].id, [1; 32])];
    let unsure = Desired { knows_all_pods: false, ..Desired::default() };
    assert!(plan(&unsure, &none(), &enforced, &[], &cgroups, NEVER).is_empty());
    let blind = PodCgroups { complete: false, ..cgroups_of(&[]) };
    let desired = desired_of(&[assignment("a").pod("p1")]);
    assert!(plan(&desired, &none(), &enforced, &[], &blind, NEVER).is_empty());
}

#[test]
fn who_is_to_keep_it_until_its_end_does() {
    let enforced = |cgroups: &PodCgroups| enforced_pod("p1", cgroups.pods["p1"].id, [1; 32]);
    let (desired, cgroups) = (desired_of(&[]), cgroups_of(&["p1"]));
    let enforced = [enforced(&cgroups)];
    let planned = |cgroups, until_end: &dyn Fn(&str) -> bool| {
        summary(&plan(&desired, &none(), &enforced, &[], cgroups, Known { until_end, ..NEVER }))
    };
    assert_eq!(planned(&cgroups, &|_| false), ["release p1 NoEgg"]);
    assert!(planned(&cgroups, &|uid| uid == "p1").is_empty());
    assert_eq!(planned(&cgroups_of(&[]), &|_| true), ["release p1 Ended"]);
}

#[test]
fn a_failure_keeps_what_is_in_force_and_falls_back_only_where_nothing_is() {
    let desired = desired_of(&[
        assignment("good").allow("10.0.0.0/8").pod("p1").pod("p2"),
        assignment("bad").allow("what").pod("p1").pod("p2"),
    ]);
    let cgroups = cgroups_of(&["p1", "p2"]);
    let enforced = [enforced_pod("p1", cgroups.pods["p1"].id, [1; 32])];
    assert_eq!(summary(&plan(&desired, &none(), &enforced, &[], &cgroups, NEVER)), ["first p2"]);
}

fn with_containers(mut cgroups: PodCgroups, uid: &str, names: &[Option<&str>]) -> PodCgroups {
    let one = |(cgroup, name): (u64, &Option<&str>)| {
        let path = format!("/kubepods/pod{uid}/{cgroup}").into();
        (cgroup, Container { path, name: name.map(str::to_owned), seen: Instant::now() })
    };
    cgroups.containers.insert(uid.into(), (100..).zip(names).map(one).collect());
    cgroups
}

fn divided(uid: &str, cgroup: u64, desired: &Desired, names: &[&str]) -> EnforcedPod {
    let pod = &desired.pods[uid];
    let digest = pod.in_force_policy().unwrap().digest;
    let one = |(cgroup, name): (u64, &&str)| {
        let policy = pod.division.as_ref().unwrap().policy_of(name).map(|policy| policy.digest);
        (cgroup, EnforcedContainer { name: (*name).into(), subject: 2, policy })
    };
    let containers = (100..).zip(names).map(one).collect();
    EnforcedPod { containers: Some(containers), ..enforced_pod(uid, cgroup, digest) }
}

#[test]
fn a_divided_pod_follows_its_containers() {
    let desired = desired_of(&[
        assignment("a").allow("10.0.0.0/8").containers(&["app"]).pod("p1"),
        assignment("b").allow("192.0.2.0/24").containers(&["app", "init"]).pod("p1"),
    ]);
    let cgroups = cgroups_of(&["p1"]);
    let id = cgroups.pods["p1"].id;
    // The sandbox has no name.
    let there = with_containers(cgroups.clone(), "p1", &[Some("app"), Some("free"), None]);
    assert_eq!(summary(&plan(&desired, &none(), &[], &[], &there, NEVER)), ["divide p1: app 2, free free"]);
    let undivided = enforced_pod("p1", id, desired.pods["p1"].policy.as_ref().unwrap().digest);
    assert_eq!(
        summary(&plan(&desired, &none(), &[undivided], &[], &there, NEVER)),
        ["divide p1: app 2, free free"]
    );
    let now = [divided("p1", id, &desired, &["app", "free"])];
    assert!(plan(&desired, &none(), &now, &[], &there, NEVER).is_empty());
    let more = with_containers(cgroups.clone(), "p1", &[Some("app"), Some("free"), Some("init")]);
    assert_eq!(
        summary(&plan(&desired, &none(), &now, &[], &more, NEVER)),
        ["divide p1: app 2, free free, init 1"]
    );
    let fewer = with_containers(cgroups.clone(), "p1", &[Some("app")]);
    assert_eq!(summary(&plan(&desired, &none(), &now, &[], &fewer, NEVER)), ["divide p1: app 2"]);
    // No Egg is for certain containers any more.
    let united = desired_of(&[assignment("a").allow("10.0.0.0/8").pod("p1")]);
    assert_eq!(summary(&plan(&united, &none(), &now, &[], &cgroups, NEVER)), ["change p1"]);
}

#[test]
fn a_failure_leaves_containers_as_they_are_and_covers_new_ones() {
    let good = assignment("good").allow("10.0.0.0/8").containers(&["app"]).pod("p1");
    let before = desired_of(std::slice::from_ref(&good));
    let bad = assignment("bad").allow("what").containers(&["app"]).pod("p1");
    let desired = desired_of(&[good, bad]);
    let cgroups = cgroups_of(&["p1"]);
    let now = [divided("p1", cgroups.pods["p1"].id, &before, &["app"])];
    let same = with_containers(cgroups.clone(), "p1", &[Some("app")]);
    assert!(plan(&desired, &none(), &now, &[], &same, NEVER).is_empty());
    let more = with_containers(cgroups, "p1", &[Some("app"), Some("app")]);
    assert_eq!(
        summary(&plan(&desired, &none(), &now, &[], &more, NEVER)),
        ["divide p1: app as before, app 1"]
    );
    // Unless the cluster has said something new meanwhile.
    let known = Known { is_new_of_cluster: &|uid, of_cluster| uid == "p1" && of_cluster.is_empty(), ..NEVER };
    assert_eq!(summary(&plan(&desired, &none(), &now, &[], &more, known)), ["divide p1: app 1, app 1"]);
}

#[test]
fn caps_follow_what_is_known() {
    let desired = desired_of(&[
        assignment("a").shape("5M", "Pod").pod("new").pod("settled").pod("changed").pod("restarted"),
        assignment("b").pod("freed"),
        assignment("c").shape("5M", "Pod").malformed().pod("unknown"),
    ]);
    let desired = Desired { annotated: Some(BTreeMap::new()), ..desired };
    let pod = |uid: &str, caps: Option<Vec<Cap>>| ShapedPod { uid: uid.into(), caps };
    let caps = |uid: &str| desired.pods[uid].limits.caps.clone();
    let shaped = [
        pod("settled", caps("settled")),
        pod("changed", Some(vec![])),
        pod("restarted", None),
        pod("freed", None),
        pod("unknown", None),
        pod("ended", None),
        pod("unselected", None),
    ];
    let cgroups = cgroups_of(&["new", "settled", "changed", "restarted", "freed", "unknown", "unselected"]);
    let operations = plan_caps(&desired, &shaped, &cgroups);
    assert_eq!(
        summary(&operations),
        [
            "shape changed 5000000",
            "shape new 5000000",
            "shape restarted 5000000",
            "unshape ended false",
            "unshape freed true",
            "unshape unselected true"
        ]
    );
    let no_assignments = Desired { annotated: Some(BTreeMap::new()), ..Desired::default() };
    let no_pods = Desired { knows_all_pods: true, ..Desired::default() };
    for unsure in [no_assignments, no_pods] {
        assert!(plan_caps(&unsure, &shaped[..1], &cgroups).is_empty());
    }
}
