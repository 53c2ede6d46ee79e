//! One agent, its inputs in order, and a datapath in memory.

use kube::runtime::watcher::Event;
use l7egg_crds::PodState;
use l7egg_ebpf_common::abi::CIDRS_MAX;
use l7egg_policy::Network;

mod annotated;
mod backstops;
mod ending;
mod gate;
mod glance;
mod hold;
mod mend;
mod moves;
mod network;
mod node;
mod ready;
mod settle;

use super::*;
use crate::hold::HoldSettings;
use crate::resolvers::Former;
use crate::selected::{NamedEgg, NodePod};
use crate::testing::{AssignmentBuilder, FakeDatapath, assignment, cgroups_of, enforced_pod, node_resolvers};

fn agent(datapath: FakeDatapath) -> Reconciler<FakeDatapath> {
    holding(datapath, HoldSettings::AtMost(Duration::from_secs(10)))
}

fn holding(datapath: FakeDatapath, hold: HoldSettings) -> Reconciler<FakeDatapath> {
    let metrics = Arc::new(Metrics::new(&mut Default::default()));
    Reconciler::new(datapath, Inventory::default(), node_resolvers(), hold, metrics)
}

/// The next agent, with what this one leaves in the kernel.
fn restarted(before: &mut Reconciler<FakeDatapath>) -> Reconciler<FakeDatapath> {
    agent(std::mem::take(&mut before.datapath))
}

fn list(agent: &mut Reconciler<FakeDatapath>, assignments: &[AssignmentBuilder]) {
    agent.take(Input::Assignments(Box::new(Event::Init)));
    for assignment in assignments {
        agent.take(Input::Assignments(Box::new(Event::InitApply(assignment.object()))));
    }
    agent.take(Input::Assignments(Box::new(Event::InitDone)));
}

fn apply(agent: &mut Reconciler<FakeDatapath>, assignment: &AssignmentBuilder) {
    agent.take(Input::Assignments(Box::new(Event::Apply(assignment.object()))));
}

fn cgroups(agent: &mut Reconciler<FakeDatapath>, uids: &[&str]) {
    let cgroups = cgroups_of(uids);
    agent.datapath.know(&cgroups);
    agent.take(Input::Cgroup(CgroupEvent::Scanned(cgroups)));
}

fn pass(agent: &mut Reconciler<FakeDatapath>) -> Vec<String> {
    agent.pass();
    agent.datapath.take_calls()
}

fn status(agent: &mut Reconciler<FakeDatapath>, name: &str) -> Vec<(PodState, String)> {
    let outcome = agent.pass().unwrap();
    let report = outcome.reports.values().find(|report| report.uid == format!("uid-{name}")).unwrap();
    report.status.pods.iter().map(|pod| (pod.state, pod.reason.clone())).collect()
}

/// An agent that enforces Egg `a` for pods p1 and p2.
fn settled() -> Reconciler<FakeDatapath> {
    let mut agent = agent(FakeDatapath::default());
    list(&mut agent, &[assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2")]);
    cgroups(&mut agent, &["p1", "p2", "unselected"]);
    assert_eq!(pass(&mut agent), ["enforce p1", "enforce p2"]);
    agent
}

#[test]
fn a_settled_node_is_left_alone() {
    let mut agent = settled();
    assert!(pass(&mut agent).is_empty());
    apply(&mut agent, &assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2").generation(2));
    assert!(pass(&mut agent).is_empty());
    assert_eq!(
        status(&mut agent, "a"),
        [(PodState::Enforced, String::new()), (PodState::Enforced, String::new())]
    );
}

#[test]
fn what_is_no_news_asks_for_no_pass() {
    let mut agent = settled();
    let built = || assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2");
    let mut written = built().object();
    written.data["status"] = serde_json::json!({"pods": []});
    let mut take = |object| agent.take(Input::Assignments(Box::new(Event::Apply(object))));
    assert_eq!(take(written), Taken::Nothing, "what this agent has just written");
    assert_eq!(take(built().generation(2).object()), Taken::News);
    let egg =
        |accepted| NamedEgg { name: "Egg other/x".into(), selection: None, accepted, stays_in_force: false };
    let news = |egg| Input::Selected(News::Egg(Event::Apply(egg)));
    assert_eq!(agent.take(news(egg(None))), Taken::News);
    assert_eq!(agent.take(news(egg(None))), Taken::Nothing);
    assert_eq!(agent.take(Input::Unwatched(Kind::Eggs, Some("x".into()))), Taken::News);
    assert_eq!(agent.take(Input::Unwatched(Kind::Eggs, Some("x".into()))), Taken::Nothing);
    assert_eq!([Taken::Stop, Taken::Nothing, Taken::News].into_iter().max(), Some(Taken::Stop));
    assert_eq!(agent.take(Input::Stop), Taken::Stop);
}

#[test]
fn a_restart_writes_nothing() {
    let mut restarted = agent(settled().datapath);
    assert!(pass(&mut restarted).is_empty(), "before anything is known");
    cgroups(&mut restarted, &["p1", "p2"]);
    assert!(pass(&mut restarted).is_empty(), "before the API server has answered");
    list(&mut restarted, &[assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2")]);
    assert!(pass(&mut restarted).is_empty(), "nothing has changed");
}

#[test]
fn a_lost_api_server_changes_nothing() {
    let mut agent = settled();
    // The watch starts again and its list never ends.
    agent.take(Input::Assignments(Box::new(Event::Init)));
    assert!(pass(&mut agent).is_empty());
    agent.take(Input::Cgroup(CgroupEvent::Scanned(cgroups_of(&["p1", "p2"]))));
    assert!(pass(&mut agent).is_empty());
}

#[test]
fn what_changed_while_nobody_watched_is_found_in_the_next_list() {
    let mut agent = settled();
    list(&mut agent, &[assignment("a").allow("10.0.0.0/9").pod("p2")]);
    assert_eq!(pass(&mut agent), ["enforce p2", "release p1"]);
}

#[test]
fn a_deleted_egg_frees_its_pods() {
    let mut agent = settled();
    agent.take(Input::Assignments(Box::new(Event::Delete(assignment("a").object()))));
    assert_eq!(pass(&mut agent), ["release p1", "release p2"]);
}

#[test]
fn of_two_eggs_one_can_go() {
    let mut agent = settled();
    apply(&mut agent, &assignment("b").allow("192.0.2.0/24").pod("p1"));
    assert_eq!(pass(&mut agent), ["enforce p1"]);
    agent.take(Input::Assignments(Box::new(Event::Delete(assignment("b").object()))));
    assert_eq!(pass(&mut agent), ["enforce p1"]);
}

#[test]
fn a_pod_is_enforced_the_moment_its_cgroup_appears() {
    let mut agent = settled();
    apply(&mut agent, &assignment("b").pod("late"));
    assert!(pass(&mut agent).is_empty());
    assert_eq!(status(&mut agent, "b"), [(PodState::Pending, "WaitingForCgroup".into())]);
    let late = cgroups_of(&["late"]);
    agent.datapath.know(&late);
    agent
        .take(Input::Cgroup(CgroupEvent::Appeared { uid: "late".into(), cgroup: late.pods["late"].clone() }));
    assert_eq!(pass(&mut agent), ["enforce late"]);
    assert_eq!(status(&mut agent, "b"), [(PodState::Enforced, String::new())]);
}

#[test]
fn a_pod_that_ended_is_cleaned_up() {
    let mut agent = settled();
    let path = cgroups_of(&["p1"]).pods["p1"].path.clone();
    agent.take(Input::Cgroup(CgroupEvent::Vanished { path }));
    assert_eq!(pass(&mut agent), ["release p1"]);
}

#[test]
fn a_cgroup_that_ends_under_our_hands_is_no_failure() {
    let mut agent = agent(FakeDatapath::default());
    list(&mut agent, &[assignment("a").pod("p1")]);
    agent.take(Input::Cgroup(CgroupEvent::Scanned(cgroups_of(&["p1"]))));
    assert!(pass(&mut agent).is_empty());
    assert_eq!(status(&mut agent, "a"), [(PodState::Pending, "WaitingForCgroup".into())]);
}

#[test]
fn a_policy_that_cannot_be_compiled_keeps_the_old_one() {
    let mut agent = settled();
    apply(&mut agent, &assignment("a").allow("nonsense").pod("p1").pod("p2"));
    assert!(pass(&mut agent).is_empty());
    assert_eq!(agent.datapath.pods.len(), 2);
    assert_eq!(status(&mut agent, "a")[0], (PodState::Failed, "PolicyInvalid".into()));
    apply(&mut agent, &assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2"));
    assert!(pass(&mut agent).is_empty(), "it is the old policy again");
}

#[test]
fn what_a_namespace_writes_keeps_no_cluster_egg_out() {
    let own =
        |first| (0..64).fold(assignment("own").pod("p1"), |egg, n| egg.allow_port("10.0.0.0/8", first + n));
    let of_cluster = |cidr| assignment("c").of_cluster().deny(cidr).pod("p1");
    let mut agent = agent(FakeDatapath::default());
    list(&mut agent, &[own(1000)]);
    cgroups(&mut agent, &["p1"]);
    assert_eq!(pass(&mut agent), ["enforce p1"]);
    // Too much together: the pod runs, and has what fits nevertheless.
    apply(&mut agent, &of_cluster("192.0.2.0/24"));
    assert_eq!(pass(&mut agent), ["enforce p1"]);
    assert!(pass(&mut agent).is_empty());
    assert_eq!(status(&mut agent, "own")[0], (PodState::Failed, "PolicyTooLarge".into()));
    assert_eq!(status(&mut agent, "c")[0], (PodState::Enforced, String::new()));
    // A mistake of the namespace's own changes nothing.
    apply(&mut agent, &own(2000));
    assert!(pass(&mut agent).is_empty());

    let mut next = restarted(&mut agent);
    list(&mut next, &[own(2000), of_cluster("192.0.2.0/24")]);
    cgroups(&mut next, &["p1"]);
    assert!(pass(&mut next).is_empty());
    apply(&mut next, &of_cluster("198.51.100.0/24"));
    assert_eq!(pass(&mut next), ["enforce p1"]);
}

#[test]
fn a_pod_of_another_namespace_is_nobodys_to_name() {
    let mut agent = agent(FakeDatapath::default()).with_pods(Selected::default());
    list(&mut agent, &[assignment("a").pod("p1").pod("p2")]);
    cgroups(&mut agent, &["p1", "p2"]);
    // Before it is known whose they are, they are enforced: the operator may be faster than the list.
    assert_eq!(pass(&mut agent), ["enforce p1", "enforce p2"]);
    let pod = |uid: &str, namespace: &str| NodePod {
        namespace: namespace.into(),
        uid: uid.into(),
        ..NodePod::default()
    };
    for event in [
        Event::Init,
        Event::InitApply(pod("p1", "shop")),
        Event::InitApply(pod("p2", "other")),
        Event::InitDone,
    ] {
        agent.take(Input::Selected(News::Pod(event)));
    }
    agent.pass();
    assert_eq!(agent.desired.pods.keys().collect::<Vec<_>>(), ["p1"]);
    // Nor to say that it is in its node's network: who is there is held by nobody.
    apply(&mut agent, &assignment("a").host_network_pod("p1").host_network_pod("p3"));
    agent.pass();
    assert_eq!(agent.desired.pods.len(), 0);
    let there = NodePod { host_network: true, ..pod("p3", "shop") };
    agent.take(Input::Selected(News::Pod(Event::Apply(there))));
    agent.pass();
    assert_eq!(agent.desired.pods.keys().collect::<Vec<_>>(), ["p3"]);
    // The system's own namespace is the operator's.
    apply(&mut agent, &assignment("c").of_cluster().host_network_pod("p4"));
    agent.pass();
    assert_eq!(agent.desired.pods.keys().collect::<Vec<_>>(), ["p3", "p4"]);
}

#[test]
fn a_malformed_assignment_stops_nobody() {
    let mut agent = settled();
    apply(&mut agent, &assignment("a").malformed().pod("p1").pod("p2"));
    apply(&mut agent, &assignment("new").without_readable_pods());
    apply(&mut agent, &assignment("b").allow("192.0.2.0/24").pod("p1").pod("unselected"));
    // Egg a's last readable policy still counts for p1.
    assert_eq!(pass(&mut agent), ["enforce unselected", "enforce p1"]);
    let p1 = agent.desired.pods["p1"].policy.as_ref().unwrap();
    assert_eq!(p1.cidrs.len(), 2);
    assert_eq!(status(&mut agent, "a")[0], (PodState::Failed, "AssignmentUnreadable".into()));
    assert_eq!(status(&mut agent, "b")[0], (PodState::Enforced, String::new()));
}

#[test]
fn a_restart_beside_a_malformed_assignment_keeps_its_pods() {
    for malformed in
        [assignment("a").malformed().pod("p1").pod("p2"), assignment("a").without_readable_pods()]
    {
        let mut restarted = agent(settled().datapath);
        cgroups(&mut restarted, &["p1", "p2"]);
        list(&mut restarted, &[malformed]);
        assert!(pass(&mut restarted).is_empty());
        assert_eq!(restarted.datapath.pods.len(), 2);
    }
}

#[test]
fn one_refused_pod_does_not_stop_the_others_and_is_tried_again() {
    let mut agent = agent(FakeDatapath::default());
    agent.datapath.refuse.insert("p1".into());
    list(&mut agent, &[assignment("a").pod("p1").pod("p2")]);
    cgroups(&mut agent, &["p1", "p2"]);
    assert_eq!(pass(&mut agent), ["enforce p2"]);
    assert_eq!(status(&mut agent, "a")[0], (PodState::Failed, "KernelRefused".into()));
    agent.datapath.refuse.clear();
    assert_eq!(pass(&mut agent), ["enforce p1"]);
    assert_eq!(status(&mut agent, "a")[0], (PodState::Enforced, String::new()));
}

#[test]
fn a_namespace_that_fills_the_maps_has_its_next_pod_refused() {
    let mut agent = agent(FakeDatapath::default());
    list(&mut agent, &[assignment("a").allow("10.0.0.0/8").pod("p1")]);
    cgroups(&mut agent, &["p1", "p2", "p3"]);
    assert_eq!(pass(&mut agent), ["enforce p1"]);
    let pod = &agent.desired.pods["p1"];
    let (namespace, mut full) = (pod.namespace.clone(), pod.policy.as_deref().unwrap().clone());
    let (network, masks) = full.cidrs.iter().next().map(|(network, masks)| (*network, *masks)).unwrap();
    let networks = (0..CIDRS_MAX - 100).map(|it| (Network { address: it.into(), ..network }, masks));
    full.cidrs = networks.collect();
    full.digest = [1; 32];
    agent.room.take("p2", &namespace, std::iter::once(&full));
    let cgroup_id = agent.cgroups.pods["p2"].id;
    // What it says cannot be read, so it keeps what it has.
    apply(&mut agent, &assignment("c").malformed().pod("p2"));
    agent.datapath.pods.insert("p2".into(), enforced_pod("p2", cgroup_id, full.digest));

    apply(&mut agent, &assignment("b").allow("10.1.0.0/16").pod("p3"));
    assert!(pass(&mut agent).is_empty());
    assert_eq!(status(&mut agent, "b"), [(PodState::Failed, "ShareReached".into())]);
    // That keeps no ClusterEgg from a pod that runs.
    apply(&mut agent, &assignment("c").of_cluster().deny("192.0.2.0/24").pod("p3"));
    assert_eq!(pass(&mut agent), ["enforce p3"]);
    apply(&mut agent, &assignment("d").allow("10.2.0.0/16").pod("p3"));
    assert!(pass(&mut agent).is_empty());
    agent.datapath.pods.remove("p2");
    assert_eq!(pass(&mut agent), ["enforce p3"]);
}

#[test]
fn a_kernel_that_cannot_be_asked_is_left_alone() {
    let mut agent = settled();
    agent.datapath.broken = true;
    agent.take(Input::Assignments(Box::new(Event::Delete(assignment("a").object()))));
    assert!(agent.pass().is_none());
    agent.datapath.broken = false;
    assert_eq!(pass(&mut agent), ["release p1", "release p2"]);
}

#[test]
fn the_loop_takes_inputs_publishes_and_ends() {
    let (inputs, received) = mpsc::channel();
    let (outcome, published) = watch::channel(Arc::default());
    let agent = settled();
    let thread = std::thread::spawn(move || agent.run(&received, &outcome));
    inputs.send(Input::Assignments(Box::new(Event::Apply(assignment("b").pod("p1").object())))).unwrap();
    let start = Instant::now();
    while published.borrow().reports.len() < 2 {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
    inputs.send(Input::Stop).unwrap();
    thread.join().unwrap();
    assert_eq!(published.borrow().state.pods.len(), 2);
}

/// Settles as long as there is something to do; whose connections were looked at.
fn settle(agent: &mut Reconciler<FakeDatapath>) -> Vec<(String, bool)> {
    while agent.has_unsettled() {
        agent.settle_one();
    }
    std::mem::take(&mut agent.datapath.settled)
}

#[test]
fn connections_are_looked_at_after_every_change_and_after_a_restart() {
    let mut agent = settled();
    assert_eq!(settle(&mut agent), [("p1".to_owned(), true), ("p2".to_owned(), true)]);
    assert_eq!(settle(&mut agent), []);
    apply(&mut agent, &assignment("a").allow("10.0.0.0/9").pod("p1").pod("p2"));
    pass(&mut agent);
    assert_eq!(settle(&mut agent).len(), 2);

    let mut restarted = self::agent(agent.datapath);
    pass(&mut restarted);
    assert_eq!(settle(&mut restarted), [], "before it knows what should be in force");
    cgroups(&mut restarted, &["p1", "p2"]);
    list(&mut restarted, &[assignment("a").allow("10.0.0.0/9").pod("p1").pod("p2")]);
    pass(&mut restarted);
    assert_eq!(settle(&mut restarted), [("p1".to_owned(), true), ("p2".to_owned(), true)]);
}

#[test]
fn an_audited_node_enforces_nothing_and_says_so() {
    let mut agent = Reconciler::new(
        FakeDatapath::default(),
        Inventory::new(true),
        node_resolvers(),
        HoldSettings::AtMost(Duration::from_secs(10)),
        Arc::new(Metrics::new(&mut Default::default())),
    );
    list(&mut agent, &[assignment("a").allow("10.0.0.0/8").pod("p1")]);
    cgroups(&mut agent, &["p1"]);
    pass(&mut agent);
    assert_eq!(status(&mut agent, "a"), [(PodState::Audited, String::new())]);
    assert!(agent.desired.pods["p1"].policy.as_ref().unwrap().enforcement.is_nothing());
    let outcome = agent.pass().unwrap();
    assert_eq!(outcome.state.pods[0].state, PodState::Audited);
    assert_eq!(outcome.pods.values().next().unwrap().pod, "shop/p1");
}

#[test]
fn a_change_of_resolvers_is_a_change_of_policy() {
    let mut agent = settled();
    let resolvers = NodeResolvers { node: vec!["192.0.2.53".parse().unwrap()], ..NodeResolvers::default() };
    agent.take(Input::Resolvers(resolvers));
    assert_eq!(pass(&mut agent), ["enforce p1", "enforce p2"]);
    assert_eq!(agent.desired.pods["p1"].resolv_conf.servers.len(), 1);
}

#[test]
fn pods_that_began_before_resolvers_changed_keep_them_across_a_restart() {
    let ids = cgroups_of(&["p1", "p2"]).pods;
    let (older, newer) = if ids["p1"].id < ids["p2"].id { ("p1", "p2") } else { ("p2", "p1") };
    let given = node_resolvers();
    let former = Former { until: Some(ids[older].id), given };
    let now = NodeResolvers {
        cluster: vec!["10.96.0.11".parse().unwrap()],
        former: vec![former],
        ..NodeResolvers::default()
    };
    let metrics = Arc::new(Metrics::new(&mut Default::default()));
    let datapath = std::mem::take(&mut settled().datapath);
    let mut restarted = Reconciler::new(datapath, Inventory::default(), now, HoldSettings::Never, metrics);
    // What the API server says may come before what the cgroup tree does.
    list(&mut restarted, &[assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2")]);
    assert!(pass(&mut restarted).is_empty());
    cgroups(&mut restarted, &["p1", "p2"]);
    pass(&mut restarted);
    let servers = |uid: &str| -> Vec<String> {
        restarted.desired.pods[uid].resolv_conf.servers.iter().map(ToString::to_string).collect()
    };
    assert_eq!(servers(older), ["10.96.0.10", "10.96.0.11"]);
    assert_eq!(servers(newer), ["10.96.0.11"]);
}

#[test]
fn bandwidth_limits_follow_their_eggs_and_a_refusal_is_told() {
    let mut agent = agent(FakeDatapath::default());
    list(&mut agent, &[assignment("a").shape("5M", "Pod").pod("p1").pod("p2")]);
    cgroups(&mut agent, &["p1", "p2"]);
    assert_eq!(pass(&mut agent), ["enforce p1", "enforce p2", "shape p1", "shape p2"]);
    assert!(pass(&mut agent).is_empty());
    apply(&mut agent, &assignment("a").shape("6M", "Pod").pod("p1").pod("p2"));
    assert_eq!(pass(&mut agent), ["shape p1", "shape p2"]);
    apply(&mut agent, &assignment("a").pod("p1").pod("p2"));
    assert_eq!(pass(&mut agent), ["unshape p1", "unshape p2"]);
    agent.datapath.refuse_shaping = true;
    apply(&mut agent, &assignment("a").shape("6M", "Pod").pod("p1").pod("p2"));
    let failed = (PodState::Failed, "NoFq".to_owned());
    assert_eq!(status(&mut agent, "a"), [failed.clone(), failed]);
    agent.datapath.refuse_shaping = false;
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(pass(&mut agent), ["shape p1", "shape p2"]);
    list(&mut agent, &[]);
    assert_eq!(pass(&mut agent), ["unshape p1", "unshape p2", "release p1", "release p2"]);
}
