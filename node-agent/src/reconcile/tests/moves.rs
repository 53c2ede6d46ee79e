//! Pods that move from one Egg to another: the operator writes two assignments, and either may come first.

use super::*;
use crate::testing::warnings;

/// Egg `shop/<name>`, which selects the pods with this label.
fn egg(name: &str) -> NamedEgg {
    let object = serde_json::json!({"apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg",
        "metadata": {"namespace": "shop", "name": name}, "spec": {"podSelector": {"matchLabels": {name: "yes"}}}});
    crate::selected::egg(serde_json::from_value(object).unwrap())
}

/// A pod with these labels.
fn labelled(labels: &[&str]) -> NodePod {
    NodePod {
        namespace: "shop".into(),
        name: "pod-a".into(),
        uid: "pod-a".into(),
        labels: labels.iter().map(|name| ((*name).to_owned(), "yes".to_owned())).collect(),
        ..NodePod::default()
    }
}

fn tell(agent: &mut Reconciler<FakeDatapath>, news: impl IntoIterator<Item = News>) {
    news.into_iter().for_each(|news| _ = agent.take(Input::Selected(news)));
}

/// An agent that enforces these assignments for one pod. If it is told of Eggs, of a, b and c.
fn enforcing(
    selected: Selected,
    pod: NodePod,
    assignments: &[AssignmentBuilder],
) -> Reconciler<FakeDatapath> {
    let mut agent = agent(FakeDatapath::default()).with_pods(selected);
    tell(&mut agent, [News::Pod(Event::InitApply(pod)), News::Pod(Event::InitDone)]);
    tell(&mut agent, [News::Namespace(Event::InitDone)]);
    if agent.selected.is_told_of_eggs() {
        tell(&mut agent, ["a", "b", "c"].map(|name| News::Egg(Event::InitApply(egg(name)))));
        tell(&mut agent, [News::Egg(Event::InitDone), News::ClusterEgg(Event::InitDone)]);
    }
    cgroups(&mut agent, &["pod-a"]);
    list(&mut agent, assignments);
    assert_eq!(pass(&mut agent), ["enforce pod-a"]);
    agent
}

fn a() -> AssignmentBuilder {
    assignment("a").allow("10.0.0.0/8")
}

fn b() -> AssignmentBuilder {
    assignment("b").allow("10.0.0.0/9")
}

fn c() -> AssignmentBuilder {
    assignment("c").allow("192.0.2.0/24").pod("pod-a")
}

fn eggs(agent: &Reconciler<FakeDatapath>) -> &[String] {
    agent.desired.pods.get("pod-a").map_or(&[], |pod| &pod.eggs)
}

/// An agent that has heard that pod-a moves from Egg a to b, and that a's assignment names it no more.
fn between() -> Reconciler<FakeDatapath> {
    let mut agent = enforcing(Selected::default(), labelled(&["a", "c"]), &[a().pod("pod-a"), c()]);
    tell(&mut agent, [News::Pod(Event::Apply(labelled(&["b", "c"])))]);
    apply(&mut agent, &a());
    agent
}

#[test]
fn a_pod_that_moves_is_never_under_its_other_eggs_alone() {
    let mut agent = between();
    assert_eq!(pass(&mut agent), [""; 0]);
    assert_eq!(eggs(&agent), ["Egg shop/a", "Egg shop/c"]);
    apply(&mut agent, &b().pod("pod-a"));
    assert_eq!(pass(&mut agent), ["enforce pod-a"]);
    assert_eq!(eggs(&agent), ["Egg shop/b", "Egg shop/c"]);
    assert_eq!(agent.inventory.departed().count(), 0);

    // It may come first; and its labels last.
    let mut agent = enforcing(Selected::default(), labelled(&["a", "c"]), &[a().pod("pod-a"), c()]);
    apply(&mut agent, &a());
    assert_eq!(pass(&mut agent), [""; 0]);
    tell(&mut agent, [News::Pod(Event::Apply(labelled(&["b", "c"])))]);
    assert_eq!(pass(&mut agent), [""; 0]);
    tell(&mut agent, [News::Pod(Event::Apply(labelled(&["c"])))]);
    assert_eq!(pass(&mut agent), ["enforce pod-a"], "it moves nowhere");
    assert_eq!(eggs(&agent), ["Egg shop/c"]);
}

#[test]
fn an_assignment_that_does_not_come_is_not_waited_for_for_ever() {
    let mut agent = between();
    assert_eq!(pass(&mut agent), [""; 0]);
    let after = |seconds| Instant::now() + Duration::from_secs(seconds);
    assert_eq!(warnings(|| agent.heed_endings(after(9))).len(), 0);
    assert_eq!(pass(&mut agent), [""; 0]);
    let told = warnings(|| agent.heed_endings(after(10)));
    assert!(told.len() == 1 && told[0].contains("eggs=\"Egg shop/b\""), "{told:?}");
    assert_eq!(pass(&mut agent), ["enforce pod-a"]);
    assert_eq!(eggs(&agent), ["Egg shop/c"]);
}

#[test]
fn a_pod_that_is_never_held_moves_like_any_other() {
    let host = |labels: &[&str]| NodePod { host_network: true, ..labelled(labels) };
    let assigned = |egg: AssignmentBuilder| egg.host_network_pod("pod-a");
    let mut agent = enforcing(Selected::default(), host(&["a"]), &[assigned(a())]);
    tell(&mut agent, [News::Pod(Event::Apply(host(&["b"])))]);
    apply(&mut agent, &a());
    assert_eq!(pass(&mut agent), [""; 0]);
    apply(&mut agent, &assigned(b()));
    assert_eq!(pass(&mut agent), ["enforce pod-a"]);
    apply(&mut agent, &b());
    tell(&mut agent, [News::Pod(Event::Apply(host(&[])))]);
    assert_eq!(pass(&mut agent), ["release pod-a"]);
}

#[test]
fn where_eggs_are_not_told_a_pod_may_be_moving() {
    let moved = |before: &mut Reconciler<FakeDatapath>| {
        apply(before, &a());
        assert_eq!(pass(before), [""; 0], "it may be on its way");
        apply(before, &b().pod("pod-a"));
        assert_eq!(pass(before), ["enforce pod-a"]);
    };
    let mut agent = enforcing(Selected::without_eggs(), labelled(&[]), &[a().pod("pod-a")]);
    moved(&mut agent);
    apply(&mut agent, &b());
    assert_eq!(pass(&mut agent), [""; 0], "its time begins anew");
    *agent.unassigned.get_mut("pod-a").unwrap() -= Duration::from_secs(2);
    assert_eq!(pass(&mut agent), ["release pod-a"]);
    assert_eq!(pass(&mut agent), [""; 0]);
    assert!(agent.unassigned.is_empty());

    // So for one that starts while it moves.
    let before = enforcing(Selected::without_eggs(), labelled(&[]), &[a().pod("pod-a")]);
    let mut restarted = super::agent(before.datapath).with_pods(Selected::without_eggs());
    cgroups(&mut restarted, &["pod-a"]);
    tell(&mut restarted, [News::Pod(Event::InitApply(labelled(&[]))), News::Pod(Event::InitDone)]);
    tell(&mut restarted, [News::Namespace(Event::InitDone)]);
    list(&mut restarted, &[a()]);
    assert_eq!(pass(&mut restarted), [""; 0]);
}
