//! New pods that are held, and let go.

use super::*;
use crate::datapath::OlderPod;

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

#[test]
fn what_another_version_holds_goes_when_the_pod_is_let_go() {
    let cgroup_id = cgroups_of(&["pod-a"]).pods["pod-a"].id;
    let held = |limit| {
        let mut datapath = FakeDatapath::default();
        datapath.older.push(OlderPod { uid: "pod-a".into(), cgroup_id, held: true });
        let mut agent = holding(datapath, limit);
        cgroups(&mut agent, &["pod-a"]);
        // It is assigned what only a newer agent can read.
        list(&mut agent, &[assignment("a").malformed().pod("pod-a")]);
        agent
    };
    let mut agent = held(HoldSettings::AtMost(Duration::from_secs(10)));
    assert_eq!(pass(&mut agent), [""; 0]);
    assert!(agent.held.contains_key("pod-a"));
    let mut agent = held(HoldSettings::AtMost(Duration::ZERO));
    assert_eq!(pass(&mut agent), ["retire older"]);
    assert!(agent.holds.let_go().contains_key("pod-a"));
}

#[test]
fn a_pod_that_comes_after_its_assignment_became_unreadable_is_like_its_older_siblings() {
    let mut agent = agent(FakeDatapath::default());
    list(&mut agent, &[assignment("a").allow("10.0.0.0/8").pod("p1")]);
    cgroups(&mut agent, &["p1"]);
    assert_eq!(pass(&mut agent), ["enforce p1"]);
    apply(&mut agent, &assignment("a").malformed().pod("p1").pod("p2"));
    cgroups(&mut agent, &["p1", "p2"]);
    assert_eq!(pass(&mut agent), ["enforce p2"]);
    let (state, reason) = status(&mut agent, "a")[1].clone();
    assert_eq!((state, reason.as_str()), (PodState::Failed, "AssignmentUnreadable"), "and that is told");
    assert!(agent.held.is_empty());
}
