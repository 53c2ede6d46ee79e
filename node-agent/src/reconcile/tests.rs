//! One agent, its inputs in order, and a datapath in memory.

use kube::runtime::watcher::Event;
use l7egg_crds::PodState;

mod annotated;
mod gate;

use super::*;
use crate::selected::{NamedEgg, NodePod};
use crate::testing::{AssignmentBuilder, FakeDatapath, assignment, cgroups_of, node_resolvers};

fn agent(datapath: FakeDatapath) -> Reconciler<FakeDatapath> {
    holding(datapath, HoldSettings::AtMost(Duration::from_secs(10)))
}

fn holding(datapath: FakeDatapath, hold: HoldSettings) -> Reconciler<FakeDatapath> {
    let metrics = Arc::new(Metrics::new(&mut Default::default()));
    Reconciler::new(datapath, Inventory::default(), node_resolvers(), hold, metrics)
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
    assert_eq!(pass(&mut agent), ["shape p1", "shape p2"]);
    list(&mut agent, &[]);
    assert_eq!(pass(&mut agent), ["unshape p1", "unshape p2", "release p1", "release p2"]);
}

/// Tells the agent that Egg `Egg shop/a` selects every pod of namespace shop, and that these are the node's pods.
fn select(agent: &mut Reconciler<FakeDatapath>, uids: &[&str]) {
    let all = serde_json::json!({"podSelector": {}});
    let object = serde_json::json!({"apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg",
        "metadata": {"namespace": "shop", "name": "a"}, "spec": all});
    let egg: NamedEgg = crate::selected::egg(serde_json::from_value(object).unwrap());
    let pod = |uid: &str| NodePod {
        namespace: "shop".into(),
        name: uid.into(),
        uid: uid.into(),
        ..NodePod::default()
    };
    let pods = uids.iter().map(|uid| News::Pod(Event::InitApply(pod(uid))));
    let lists = [
        News::Pod(Event::InitDone),
        News::Egg(Event::InitApply(egg)),
        News::Egg(Event::InitDone),
        News::ClusterEgg(Event::InitDone),
        News::Namespace(Event::InitDone),
    ];
    pods.chain(lists).for_each(|news| {
        agent.take(Input::Selected(news));
    });
}

fn appear(agent: &mut Reconciler<FakeDatapath>, uid: &str) {
    let cgroups = cgroups_of(&[uid]);
    agent.datapath.know(&cgroups);
    let cgroup = cgroups.pods[uid].clone();
    agent.take(Input::Cgroup(CgroupEvent::Appeared { uid: uid.into(), cgroup }));
}

/// An agent that has seen a node with one pod, which ran before it, and knows that an Egg selects this and the next.
fn waiting() -> Reconciler<FakeDatapath> {
    let mut agent = agent(FakeDatapath::default());
    cgroups(&mut agent, &["pod-old"]);
    list(&mut agent, &[]);
    select(&mut agent, &["pod-old", "pod-new"]);
    assert!(pass(&mut agent).is_empty(), "what ran before is not cut");
    agent
}

#[test]
fn a_new_pod_is_held_until_its_policy_is_in_force() {
    let mut agent = waiting();
    appear(&mut agent, "pod-new");
    assert_eq!(pass(&mut agent), ["hold pod-new"]);
    let outcome = agent.pass().unwrap();
    let pod = outcome.state.pods.iter().find(|pod| pod.uid == "pod-new").unwrap();
    assert_eq!((pod.name.as_str(), pod.reason.as_str()), ("shop/pod-new", "Held"));
    assert!(pod.message.contains("Egg shop/a selects it"), "{}", pod.message);
    assert!(outcome.notices.is_empty(), "not at once");
    assert!(pass(&mut agent).is_empty());
    apply(&mut agent, &assignment("a").allow("10.0.0.0/8").pod("pod-new"));
    assert_eq!(pass(&mut agent), ["enforce pod-new"]);
    assert!(pass(&mut agent).is_empty());
    assert_eq!(status(&mut agent, "a"), [(PodState::Enforced, String::new())]);
}

#[test]
fn what_is_held_stays_held_when_the_agent_starts_anew() {
    let mut before = waiting();
    appear(&mut before, "pod-new");
    assert_eq!(pass(&mut before), ["hold pod-new"]);
    let mut agent = agent(before.datapath);
    assert!(pass(&mut agent).is_empty(), "before anything is known");
    cgroups(&mut agent, &["pod-old", "pod-new"]);
    assert!(pass(&mut agent).is_empty());
    list(&mut agent, &[]);
    assert!(pass(&mut agent).is_empty(), "no assignment yet, and no word of the Egg");
    select(&mut agent, &["pod-old", "pod-new"]);
    assert!(pass(&mut agent).is_empty());
    agent.take(Input::Selected(News::Egg(Event::InitDone)));
    agent.take(Input::Selected(News::Egg(Event::Init)));
    agent.take(Input::Selected(News::Egg(Event::InitDone)));
    assert_eq!(pass(&mut agent), ["release pod-new"], "no Egg is left");
}

#[test]
fn a_new_pod_whose_policy_does_not_fit_is_held() {
    let mut agent = waiting();
    agent.datapath.refuse.insert("pod-new".into());
    apply(&mut agent, &assignment("a").pod("pod-new").pod("pod-old"));
    agent.datapath.refuse.insert("pod-old".into());
    appear(&mut agent, "pod-new");
    assert_eq!(pass(&mut agent), ["hold pod-new"], "what is new is denied, what ran before is not");
    assert!(pass(&mut agent).is_empty());
    let outcome = agent.pass().unwrap();
    let report = outcome.reports.values().next().unwrap();
    assert!(report.status.pods[0].message.ends_with("nothing may leave it"), "{:?}", report.status.pods);
    assert!(
        report.status.pods[1].message.ends_with("nothing is in force for the pod"),
        "{:?}",
        report.status.pods
    );
    agent.datapath.refuse.clear();
    assert_eq!(pass(&mut agent), ["enforce pod-new", "enforce pod-old"]);
}

#[test]
fn strict_holds_what_nobody_has_told_of_yet_and_lets_go_when_no_egg_selects_it() {
    let mut agent = Reconciler::new(
        FakeDatapath::default(),
        Inventory::default(),
        node_resolvers(),
        HoldSettings::Strict,
        Arc::new(Metrics::new(&mut Default::default())),
    );
    cgroups(&mut agent, &[]);
    list(&mut agent, &[]);
    select(&mut agent, &[]);
    appear(&mut agent, "pod-new");
    assert_eq!(pass(&mut agent), ["hold pod-new"]);
    let pod =
        NodePod { namespace: "other".into(), name: "x".into(), uid: "pod-new".into(), ..NodePod::default() };
    agent.take(Input::Selected(News::Pod(Event::Apply(pod.clone()))));
    assert_eq!(pass(&mut agent), ["release pod-new"]);
    agent.take(Input::Selected(News::Pod(Event::Apply(NodePod { host_network: true, ..pod }))));
    assert!(pass(&mut agent).is_empty());
}

/// An agent whose node shares its machine with others or not.
fn of_node(is_given: bool) -> Reconciler<FakeDatapath> {
    let cgroup = PodCgroup { path: "/sys/fs/cgroup".into(), id: 1 };
    let mut datapath = FakeDatapath::default();
    let mut known = PodCgroups::default();
    known.pods.insert("the root".into(), cgroup.clone());
    datapath.know(&known);
    agent(datapath).with_node(NodeCgroup { cgroup, is_given })
}

fn of_host(agent: &mut Reconciler<FakeDatapath>) -> l7egg_crds::HostReport {
    let outcome = agent.pass().unwrap();
    let report = outcome.reports.values().next().unwrap().status.clone();
    assert!(report.pods.is_empty());
    report.host.unwrap()
}

#[test]
fn a_node_is_enforced_when_its_guard_and_its_pods_are_known() {
    let mut agent = of_node(false);
    list(&mut agent, &[assignment("a").allow("10.0.0.0/8").host()]);
    assert_eq!(of_host(&mut agent).reason, "GuardNotReady");
    assert!(agent.datapath.take_calls().is_empty());
    agent.take(Input::ApiServers(["10.0.0.1:6443".parse().unwrap()].into()));
    assert_eq!(of_host(&mut agent).reason, "NoKubeletCgroups");
    assert!(agent.datapath.take_calls().is_empty());
    cgroups(&mut agent, &["p1"]);
    assert_eq!(pass(&mut agent), ["enforce node"]);
    assert_eq!(agent.datapath.left_alone, [std::path::PathBuf::from("/kubepods")]);
    let report = of_host(&mut agent);
    assert_eq!(report.state, PodState::Enforced);
    assert_eq!(report.guard[0], "API server 10.0.0.1 (TCP 6443)");
    // The API server moves.
    agent.take(Input::ApiServers(["10.0.0.2:6443".parse().unwrap()].into()));
    assert_eq!(pass(&mut agent), ["enforce node"]);
    list(&mut agent, &[]);
    assert_eq!(pass(&mut agent), ["release node"]);
}

#[test]
fn nodes_that_share_a_machine_have_to_be_told_apart() {
    let shared = |agent: &mut Reconciler<FakeDatapath>| {
        let mut seen = cgroups_of(&[]);
        seen.parents.push("/other/kubepods".into());
        agent.take(Input::Cgroup(CgroupEvent::Scanned(seen)));
    };
    let start = |is_given| {
        let mut agent = of_node(is_given);
        agent.take(Input::ApiServers(["10.0.0.1:6443".parse().unwrap()].into()));
        list(&mut agent, &[assignment("a").host()]);
        agent
    };
    let mut agent = start(false);
    shared(&mut agent);
    assert!(pass(&mut agent).is_empty());
    assert_eq!(of_host(&mut agent).reason, "SeveralKubelets");
    let mut agent = start(true);
    shared(&mut agent);
    assert_eq!(pass(&mut agent), ["enforce node"]);
    // What is in force stays.
    let mut agent = start(false);
    cgroups(&mut agent, &[]);
    assert_eq!(pass(&mut agent), ["enforce node"]);
    shared(&mut agent);
    assert!(pass(&mut agent).is_empty());
}
