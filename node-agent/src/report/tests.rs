use super::*;
use crate::{
    desired::desired,
    policies::PolicyCache,
    testing::{AssignmentBuilder, assignment, cgroups_of, enforced_pod, inventory_of, told},
};

#[derive(Default)]
struct World {
    assignments: Vec<AssignmentBuilder>,
    cgroups: PodCgroups,
    limits: Vec<Limit>,
    limits_of_pods: BTreeMap<String, BTreeSet<Limit>>,
    failures: BTreeMap<String, Failure>,
    shaped: BTreeMap<String, ShapedPod>,
    unshaped: BTreeMap<String, Failure>,
    unfound: BTreeSet<String>,
}

impl World {
    /// `in_force` says for each pod whether the desired policy, the fallback or an old one is.
    fn states(&self, in_force: &[(&str, &str)]) -> Vec<(String, PodState, String)> {
        let inventory = inventory_of(&self.assignments);
        let desired = desired(&inventory, &told, &|_, _| false, &mut PolicyCache::default());
        let digest = |uid: &str, which: &str| match which {
            "desired" => desired.pods[uid].policy.as_ref().unwrap().digest,
            "fallback" => desired.pods[uid].fallback.as_ref().unwrap().policy.digest,
            _ => [9; 32],
        };
        let enforced = in_force
            .iter()
            .map(|(uid, which)| {
                ((*uid).to_owned(), enforced_pod(uid, self.cgroups.pods[*uid].id, digest(uid, which)))
            })
            .collect();
        let findings = Findings {
            desired: &desired,
            enforced: &enforced,
            cgroups: &self.cgroups,
            held: &BTreeMap::new(),
            let_go: &BTreeMap::new(),
            limits: &self.limits,
            limits_of_pods: &self.limits_of_pods,
            failures: &self.failures,
            shaped: &self.shaped,
            unshaped: &self.unshaped,
            unfound: &self.unfound,
            boot_id: None,
        };
        reports(&inventory, findings)
            .into_iter()
            .flat_map(|(key, report)| {
                let one = move |pod: PodReport| (format!("{} {}", key.name, pod.uid), pod.state, pod.reason);
                report.status.pods.into_iter().map(one)
            })
            .collect()
    }
}

fn world(assignments: &[AssignmentBuilder], cgroups: &[&str]) -> World {
    World { assignments: assignments.to_vec(), cgroups: cgroups_of(cgroups), ..World::default() }
}

fn expect(states: &[(String, PodState, String)], expected: &[(&str, PodState, &str)]) {
    let states: Vec<_> =
        states.iter().map(|(pod, state, reason)| (pod.as_str(), *state, reason.as_str())).collect();
    assert_eq!(states, expected);
}

#[test]
fn in_order_of_the_spec() {
    let world = world(&[assignment("a").pod("p2").pod("p1").pod("p3")], &["p1", "p2"]);
    expect(
        &world.states(&[("p1", "desired"), ("p2", "old")]),
        &[
            ("a p2", PodState::Pending, "InProgress"),
            ("a p1", PodState::Enforced, ""),
            ("a p3", PodState::Pending, "WaitingForCgroup"),
        ],
    );
}

#[test]
fn what_the_kernel_refused_is_a_failure() {
    let mut world = world(&[assignment("a").pod("p1")], &["p1"]);
    let failure = Failure { reason: "MapFull", message: "map X is full".into() };
    world.failures.insert("p1".into(), failure);
    expect(&world.states(&[]), &[("a p1", PodState::Failed, "MapFull")]);
    // What went wrong before does not matter once it is done.
    expect(&world.states(&[("p1", "desired")]), &[("a p1", PodState::Enforced, "")]);
}

#[test]
fn a_bad_egg_fails_for_itself_where_the_others_could_be_enforced() {
    let assignments =
        [assignment("bad").allow("what").pod("p1"), assignment("good").allow("10.0.0.0/8").pod("p1")];
    let world = world(&assignments, &["p1"]);
    expect(
        &world.states(&[("p1", "fallback")]),
        &[("bad p1", PodState::Failed, "PolicyInvalid"), ("good p1", PodState::Enforced, "")],
    );
    expect(
        &world.states(&[("p1", "old")]),
        &[("bad p1", PodState::Failed, "PolicyInvalid"), ("good p1", PodState::Failed, "PolicyInvalid")],
    );
}

#[test]
fn a_pod_is_enforced_once_its_limit_is_set() {
    let assignments = [assignment("a").shape("5M", "Pod").pod("p1")];
    let mut world = world(&assignments, &["p1"]);
    expect(&world.states(&[("p1", "desired")]), &[("a p1", PodState::Pending, "InProgress")]);
    world.unshaped.insert("p1".into(), Failure { reason: NETWORK_NOT_READY, message: "soon".into() });
    expect(&world.states(&[("p1", "desired")]), &[("a p1", PodState::Pending, NETWORK_NOT_READY)]);
    world.unshaped.insert("p1".into(), Failure { reason: "NoFq", message: "no fq".into() });
    expect(&world.states(&[("p1", "desired")]), &[("a p1", PodState::Failed, "NoFq")]);
    let caps =
        desired(&inventory_of(&assignments), &told, &|_, _| false, &mut PolicyCache::default()).pods["p1"]
            .limits
            .caps
            .clone();
    world.shaped.insert("p1".into(), ShapedPod { uid: "p1".into(), caps });
    expect(&world.states(&[("p1", "desired")]), &[("a p1", PodState::Enforced, "")]);
}

#[test]
fn a_wrong_annotation_is_a_failure_beside_enforced_rules() {
    let mut world = world(&[assignment("a").annotated_pod("p1", "fast")], &["p1"]);
    expect(&world.states(&[("p1", "desired")]), &[("a p1", PodState::Failed, "AnnotationInvalid")]);
    // What an earlier annotation set stays.
    world.shaped.insert("p1".into(), ShapedPod { uid: "p1".into(), caps: Some(Vec::new()) });
    expect(&world.states(&[("p1", "desired")]), &[("a p1", PodState::Failed, "AnnotationInvalid")]);
}

#[test]
fn an_unreadable_assignment_says_so_for_each_pod() {
    let world = world(&[assignment("bad").malformed().pod("p1")], &["p1"]);
    expect(&world.states(&[]), &[("bad p1", PodState::Failed, "AssignmentUnreadable")]);
}

#[test]
fn a_limit_of_the_node_is_told_of_the_pods_that_it_concerns_and_goes_away() {
    let mut world =
        world(&[assignment("a").pod("p1"), assignment("b").allow_name("a.test").pod("p2")], &["p1", "p2"]);
    world.limits = vec![Limit::Learned];
    let in_force = [("p1", "desired"), ("p2", "desired")];
    expect(
        &world.states(&in_force),
        &[("a p1", PodState::Enforced, ""), ("b p2", PodState::Enforced, "LimitReached")],
    );
    // Of the node: one pod that is denied often would be in all tenants' statuses.
    world.limits = vec![Limit::Events, Limit::Inherited];
    expect(&world.states(&in_force), &[("a p1", PodState::Enforced, ""), ("b p2", PodState::Enforced, "")]);
}

#[test]
fn who_has_a_full_share_is_told_and_nobody_else() {
    let assignments =
        [assignment("a").allow_name("a.test").pod("p1"), assignment("b").allow_name("a.test").pod("p2")];
    let mut world = world(&assignments, &["p1", "p2"]);
    world.limits = vec![Limit::Share];
    world.limits_of_pods = [("p1".to_owned(), [Limit::Share].into())].into();
    expect(
        &world.states(&[("p1", "desired"), ("p2", "desired")]),
        &[("a p1", PodState::Enforced, "LimitReached"), ("b p2", PodState::Enforced, "")],
    );
}

#[test]
fn a_container_that_a_pod_does_not_have_is_told_and_fails_nothing() {
    let egg = assignment("a").containers(&["app", "typo"]).pod_with("p1", &["app", "init"]).pod("p2");
    let inventory = inventory_of(&[egg]);
    let desired = desired(&inventory, &told, &|_, _| false, &mut PolicyCache::default());
    let cgroups = cgroups_of(&["p1", "p2"]);
    let one = |uid: &str| {
        let pod = enforced_pod(uid, cgroups.pods[uid].id, desired.pods[uid].policy.as_ref().unwrap().digest);
        (uid.to_owned(), EnforcedPod { containers: Some(BTreeMap::new()), ..pod })
    };
    let findings = Findings {
        desired: &desired,
        enforced: &["p1", "p2"].map(one).into(),
        cgroups: &cgroups,
        held: &BTreeMap::new(),
        let_go: &BTreeMap::new(),
        limits: &[],
        limits_of_pods: &BTreeMap::new(),
        failures: &BTreeMap::new(),
        shaped: &BTreeMap::new(),
        unshaped: &BTreeMap::new(),
        unfound: &BTreeSet::new(),
        boot_id: None,
    };
    let reports = reports(&inventory, findings);
    let pods = &reports.values().next().unwrap().status.pods;
    assert_eq!((pods[0].state, pods[0].reason.as_str()), (PodState::Enforced, "NoSuchContainer"));
    assert_eq!(
        pods[0].message,
        "pod shop/p1 has no container typo, only app, init: see spec.containers of Egg shop/a"
    );
    assert_eq!((pods[1].state, pods[1].reason.as_str()), (PodState::Enforced, ""));
}

#[test]
fn messages_are_not_longer_than_a_kilobyte() {
    let inventory = inventory_of(&[assignment("a").pod("p1"), assignment("b").host()]);
    let desired = desired(&inventory, &told, &|_, _| false, &mut PolicyCache::default());
    let failure = Failure { reason: "MapFull", message: "€".repeat(5000) };
    let findings = Findings {
        desired: &desired,
        enforced: &BTreeMap::new(),
        cgroups: &cgroups_of(&["p1"]),
        held: &BTreeMap::new(),
        let_go: &BTreeMap::new(),
        limits: &[],
        limits_of_pods: &BTreeMap::new(),
        failures: &["p1", NODE_UID].map(|uid| (uid.to_owned(), failure.clone())).into(),
        shaped: &BTreeMap::new(),
        unshaped: &BTreeMap::new(),
        unfound: &BTreeSet::new(),
        boot_id: None,
    };
    let all = reports(&inventory, findings);
    let pods = all.values().flat_map(|report| report.status.pods.iter().map(|pod| &pod.message));
    let hosts = all.values().flat_map(|report| report.status.host.iter().map(|host| &host.message));
    let lengths: Vec<usize> = pods.chain(hosts).map(String::len).collect();
    assert!(lengths.len() == 2 && lengths.iter().all(|length| *length <= 1024), "{lengths:?}");
    assert!(lengths.contains(&1023), "{lengths:?}");
}

#[test]
fn the_status_is_about_this_generation_and_boot() {
    let inventory = inventory_of(&[assignment("a").generation(4)]);
    let findings = Findings {
        desired: &Desired::default(),
        enforced: &BTreeMap::new(),
        cgroups: &PodCgroups::default(),
        held: &BTreeMap::new(),
        let_go: &BTreeMap::new(),
        limits: &[],
        limits_of_pods: &BTreeMap::new(),
        failures: &BTreeMap::new(),
        shaped: &BTreeMap::new(),
        unshaped: &BTreeMap::new(),
        unfound: &BTreeSet::new(),
        boot_id: Some("first"),
    };
    let all = reports(&inventory, findings);
    let status = &all.values().next().unwrap().status;
    assert_eq!((status.observed_generation, status.boot_id.as_deref()), (Some(4), Some("first")));
}

#[test]
fn a_pod_whose_network_is_not_found_is_not_called_enforced() {
    let mut world = world(&[assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2")], &["p1", "p2"]);
    world.unfound = ["p1".to_owned()].into();
    let states = world.states(&[("p1", "desired"), ("p2", "desired")]);
    let expected = [("a p1", PodState::Failed, "NetworkNotFound"), ("a p2", PodState::Enforced, "")];
    let expected = expected.map(|(of, state, reason)| (of.to_owned(), state, reason.to_owned()));
    assert_eq!(states, expected);
}
