//! What pods keep that are ending.

use super::*;
use crate::datapath::OlderPod;

fn pod(uid: &str, is_ending: bool) -> Input {
    let pod = NodePod {
        namespace: "shop".into(),
        name: uid.into(),
        uid: uid.into(),
        is_ending,
        ..NodePod::default()
    };
    Input::Selected(News::Pod(Event::InitApply(pod)))
}

/// Tells the agent that no more is to come of pods, namespaces and Eggs.
fn listed(agent: &mut Reconciler<FakeDatapath>) {
    let lists = [
        News::Pod(Event::InitDone),
        News::Egg(Event::InitDone),
        News::ClusterEgg(Event::InitDone),
        News::Namespace(Event::InitDone),
    ];
    lists.into_iter().for_each(|news| {
        agent.take(Input::Selected(news));
    });
}

/// The policy of pod-a, in short.
fn in_force(agent: &Reconciler<FakeDatapath>) -> [u8; 32] {
    agent.datapath.enforced().unwrap().iter().find(|pod| pod.uid == "pod-a").expect("it is enforced").policy
}

fn own() -> AssignmentBuilder {
    assignment("own").allow_port("10.0.0.0/8", 443)
}

fn baseline() -> AssignmentBuilder {
    assignment("baseline").allow("192.0.2.0/24").pod("pod-a")
}

/// An agent that enforces two Eggs for pod-a.
fn of_two_eggs() -> Reconciler<FakeDatapath> {
    let mut agent = agent(FakeDatapath::default()).with_pods(Selected::default());
    agent.take(pod("pod-a", false));
    listed(&mut agent);
    cgroups(&mut agent, &["pod-a"]);
    list(&mut agent, &[own().pod("pod-a"), baseline()]);
    assert_eq!(pass(&mut agent), ["enforce pod-a"]);
    agent
}

fn delete(agent: &mut Reconciler<FakeDatapath>, assignment: &AssignmentBuilder) {
    agent.take(Input::Assignments(Box::new(Event::Delete(assignment.object()))));
}

/// What another version's programs enforce for these pods, or hold.
fn of_another_version(pods: &[(&str, bool)]) -> Reconciler<FakeDatapath> {
    let older = pods.iter().map(|(uid, held)| OlderPod {
        uid: (*uid).into(),
        cgroup_id: cgroups_of(&[uid]).pods[*uid].id,
        held: *held,
    });
    let mut datapath = FakeDatapath::default();
    datapath.older.extend(older);
    agent(datapath).with_pods(Selected::default())
}

#[test]
fn what_another_version_enforces_for_an_ending_pod_stays_until_its_end() {
    let mut agent = of_another_version(&[("pod-a", false), ("pod-b", false)]);
    agent.take(pod("pod-a", true));
    agent.take(pod("pod-b", true));
    listed(&mut agent);
    cgroups(&mut agent, &["pod-a", "pod-b"]);
    // One of the Eggs of pod-a is gone already, all of pod-b are.
    list(&mut agent, &[baseline()]);
    assert_eq!(pass(&mut agent), [""; 0]);
    agent.take(Input::Selected(News::Pod(Event::Init)));
    agent.take(Input::Selected(News::Pod(Event::InitDone)));
    cgroups(&mut agent, &[]);
    list(&mut agent, &[]);
    assert_eq!([pass(&mut agent), pass(&mut agent)].concat(), ["retire older"]);
}

#[test]
fn a_pod_that_another_version_holds_stays_held() {
    let mut agent = of_another_version(&[("pod-a", true)]);
    agent.take(pod("pod-a", false));
    listed(&mut agent);
    cgroups(&mut agent, &["pod-a"]);
    list(&mut agent, &[]);
    // Nobody has said yet that an Egg selects it, nor that none does: it is as new as when it began.
    let late = serde_json::json!({"apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg",
        "metadata": {"namespace": "shop", "name": "late"}, "spec": {"podSelector": {}}});
    let late = crate::selected::egg(serde_json::from_value(late).unwrap());
    agent.take(Input::Selected(News::Egg(Event::Apply(late))));
    assert_eq!(pass(&mut agent), [""; 0], "the other version's programs do");
    assert!(agent.held.contains_key("pod-a"));
    list(&mut agent, &[baseline()]);
    // The fake does not take the older ones away where it enforces, as the kernel does.
    assert_eq!(pass(&mut agent)[0], "enforce pod-a");
}

#[test]
fn a_pod_that_lives_loses_the_egg_that_goes() {
    let mut agent = of_two_eggs();
    let before = in_force(&agent);
    delete(&mut agent, &own());
    assert_eq!(pass(&mut agent), ["enforce pod-a"]);
    assert_ne!(in_force(&agent), before);
}

#[test]
fn what_its_egg_said_stays_with_a_pod_that_is_ending() {
    type Go = fn(&mut Reconciler<FakeDatapath>);
    let ways: [(&str, Go); 3] = [
        ("deleted", |agent| delete(agent, &own())),
        ("selects it no more", |agent| apply(agent, &own().pod("other"))),
        ("not in a new list", |agent| list(agent, &[baseline()])),
    ];
    for (way, go) in ways {
        let mut agent = of_two_eggs();
        let before = in_force(&agent);
        agent.take(pod("pod-a", true));
        go(&mut agent);
        assert!(pass(&mut agent).is_empty(), "{way}");
        assert!(agent.desired.pods["pod-a"].eggs.len() == 2, "{way}");

        // What is edited counts, beside it.
        apply(&mut agent, &baseline().allow("198.51.100.0/24").generation(2));
        assert_eq!(pass(&mut agent), ["enforce pod-a"], "{way}");
        apply(&mut agent, &baseline().generation(3));
        assert_eq!(pass(&mut agent), ["enforce pod-a"], "{way}");
        assert_eq!(in_force(&agent), before, "{way}");

        // And if it comes back, it is that which is there.
        apply(&mut agent, &own().pod("pod-a").allow("203.0.113.0/24"));
        assert_eq!(pass(&mut agent), ["enforce pod-a"], "{way}");
        assert_eq!(agent.desired.pods["pod-a"].eggs.len(), 2, "{way}");

        cgroups(&mut agent, &[]);
        pass(&mut agent);
        assert!(agent.datapath.enforced().unwrap().is_empty(), "{way}");
    }
}

#[test]
fn all_its_eggs_may_go_before_a_pod() {
    let mut agent = of_two_eggs();
    let before = in_force(&agent);
    agent.take(pod("pod-a", true));
    list(&mut agent, &[]);
    assert!(pass(&mut agent).is_empty());
    assert_eq!(in_force(&agent), before);
    assert_eq!(agent.inventory.departed().count(), 2);
    cgroups(&mut agent, &[]);
    pass(&mut agent);
    assert_eq!(agent.inventory.departed().count(), 0);
}

#[test]
fn a_new_agent_leaves_a_pod_alone_that_is_ending() {
    let mut restarted = agent(of_two_eggs().datapath).with_pods(Selected::default());
    let before = in_force(&restarted);
    cgroups(&mut restarted, &["pod-a"]);
    list(&mut restarted, &[baseline()]);
    assert!(pass(&mut restarted).is_empty(), "it may be ending");
    restarted.take(pod("pod-a", true));
    listed(&mut restarted);
    assert!(pass(&mut restarted).is_empty(), "it is");
    assert_eq!(in_force(&restarted), before);
    // Not for as long as it likes.
    restarted.found.since -= Duration::from_secs(3600);
    assert_eq!(pass(&mut restarted), ["enforce pod-a"]);
}

#[test]
fn a_new_agent_changes_a_pod_that_is_not_ending() {
    let mut restarted = agent(of_two_eggs().datapath).with_pods(Selected::default());
    cgroups(&mut restarted, &["pod-a"]);
    list(&mut restarted, &[baseline()]);
    assert!(pass(&mut restarted).is_empty(), "it may be ending");
    restarted.take(pod("pod-a", false));
    listed(&mut restarted);
    assert_eq!(pass(&mut restarted), ["enforce pod-a"]);
    // From now on it is like any other.
    restarted.take(pod("pod-a", true));
    apply(&mut restarted, &baseline().allow("198.51.100.0/24").generation(2));
    assert_eq!(pass(&mut restarted), ["enforce pod-a"]);
}

/// One that starts while a namespace is being deleted, say.
#[test]
fn an_agent_that_does_not_know_the_pods_yet_frees_none() {
    let mut before = agent(FakeDatapath::default());
    cgroups(&mut before, &["pod-a"]);
    list(&mut before, &[assignment("a").pod("pod-a")]);
    before.pass();
    assert_eq!(before.datapath.enforced().unwrap().len(), 1);
    let mut agent = agent(before.datapath).with_pods(Selected::default());
    cgroups(&mut agent, &["pod-a"]);
    list(&mut agent, &[]);
    agent.pass();
    assert_eq!(agent.datapath.enforced().unwrap().len(), 1);
    // Its object is gone.
    for news in [
        News::Pod(Event::InitDone),
        News::Egg(Event::InitDone),
        News::ClusterEgg(Event::InitDone),
        News::Namespace(Event::InitDone),
    ] {
        agent.take(Input::Selected(news));
    }
    agent.pass();
    assert_eq!(agent.datapath.enforced().unwrap().len(), 1);
    cgroups(&mut agent, &[]);
    agent.pass();
    assert!(agent.datapath.enforced().unwrap().is_empty());
}
