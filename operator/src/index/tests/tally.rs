use super::*;

fn two_pods_on_a_node() -> (Index, Egg, ObjectKey) {
    let mut index = Index::default();
    let web = egg("shop", "web", 1, Selector::default(), "10.0.0.0/8");
    index.apply_egg(web.clone());
    index.apply_pod(pod("shop", "a", "n1", &[]));
    index.apply_pod(pod("shop", "b", "n1", &[]));
    let id = key(&web, "n1");
    (index, web, id)
}

fn counts(index: &mut Index, egg: &Egg) -> (usize, usize, usize) {
    let tally = index.summary(&egg.key).unwrap().tally;
    (tally.selected, tally.enforced, tally.failed)
}

#[test]
fn a_report_counts_only_for_the_generation_it_is_about() {
    let (mut index, web, id) = two_pods_on_a_node();
    assert_eq!(counts(&mut index, &web), (2, 0, 0));
    index.apply_observed(stored(&index, &id, 1));
    assert_eq!(counts(&mut index, &web), (2, 0, 0));
    index.apply_observed(reported(&index, &id, 1, PodState::Enforced));
    assert_eq!(counts(&mut index, &web), (2, 2, 0));
    // The assignment was written again; the agent has not seen it.
    let mut newer = reported(&index, &id, 1, PodState::Enforced);
    newer.generation = 2;
    index.apply_observed(newer);
    assert_eq!(counts(&mut index, &web), (2, 0, 0));
}

#[test]
fn a_report_about_something_else_than_desired_does_not_count() {
    let (mut index, web, id) = two_pods_on_a_node();
    index.apply_observed(reported(&index, &id, 1, PodState::Enforced));
    index.apply_egg(egg("shop", "web", 2, Selector::default(), "192.0.2.0/24"));
    assert_eq!(counts(&mut index, &web), (2, 0, 0));
}

#[test]
fn failures_come_with_the_agents_words() {
    let (mut index, web, id) = two_pods_on_a_node();
    index.apply_observed(reported(&index, &id, 1, PodState::Failed));
    let tally = index.summary(&web.key).unwrap().tally;
    assert_eq!((tally.enforced, tally.failed), (0, 2));
    assert_eq!(tally.failures[0], Trouble { subject: "pod shop/a on n1".into(), message: "Why: so".into() });
}

#[test]
fn reports_in_another_order_are_found_by_uid() {
    let (mut index, web, id) = two_pods_on_a_node();
    let mut observed = reported(&index, &id, 1, PodState::Enforced);
    observed.status.pods.reverse();
    observed.status.pods[0].state = PodState::Failed;
    index.apply_observed(observed);
    let tally = index.summary(&web.key).unwrap().tally;
    assert_eq!((tally.enforced, tally.failed), (1, 1));
    assert_eq!(tally.failures[0].subject, "pod shop/b on n1");
}

#[test]
fn nodes_are_added_up() {
    let (mut index, web, id) = two_pods_on_a_node();
    index.apply_pod(pod("shop", "c", "n2", &[]));
    index.apply_observed(reported(&index, &id, 1, PodState::Enforced));
    index.apply_observed(reported(&index, &key(&web, "n2"), 1, PodState::Failed));
    assert_eq!(counts(&mut index, &web), (3, 2, 1));
    index.remove_pod(&ObjectKey::new("shop", "c"));
    assert_eq!(counts(&mut index, &web), (2, 2, 0));
    index.remove_observed(&id);
    assert_eq!(counts(&mut index, &web), (2, 0, 0));
}

#[test]
fn a_write_that_fails_is_told() {
    let (mut index, web, id) = two_pods_on_a_node();
    index.set_write_error(&id, Some("too large".into()));
    let tally = index.summary(&web.key).unwrap().tally;
    assert_eq!(tally.selected, 2);
    assert_eq!(tally.pending[0].message, "too large");
    index.take_changes();
    index.set_write_error(&id, None);
    assert!(index.take_changes().status.contains(&web.key));
    assert_eq!(index.summary(&web.key).unwrap().tally.pending[0].subject, "pod shop/a on n1");
}

#[test]
fn only_the_first_troubles_are_kept() {
    let (mut index, web, id) = two_pods_on_a_node();
    for number in 0..20 {
        index.apply_pod(pod("shop", &format!("p{number}"), "n1", &[]));
    }
    index.apply_observed(reported(&index, &id, 1, PodState::Failed));
    assert_eq!(index.summary(&web.key).unwrap().tally.failures.len(), MAX_TROUBLES);
    assert_eq!(counts(&mut index, &web), (22, 0, 22));
}

#[test]
fn an_answer_that_the_watch_has_overtaken_brings_nothing_back() {
    let (mut index, _, id) = two_pods_on_a_node();
    let answer = Observed { resource_version: 10, ..stored(&index, &id, 1) };
    index.apply_observed(answer.clone());
    index.apply_observed(Observed { key: ObjectKey::new("x", "y"), resource_version: 12, ..answer.clone() });
    index.remove_observed(&id);
    index.assignment_written(answer.clone());
    assert_eq!(index.observed(&id), None);
    // One that the watch has not come to yet is taken.
    index.assignment_written(Observed { resource_version: 13, ..answer });
    assert!(index.observed(&id).is_some());
}

#[test]
fn the_strictest_limit_is_that_of_the_reports_that_count() {
    let (mut index, web, id) = two_pods_on_a_node();
    let mut observed = reported(&index, &id, 1, PodState::Enforced);
    let limit = |rate| l7egg_crds::EgressLimit { bits_per_second: rate, of: "Egg shop/web".into() };
    observed.status.pods[0].egress_limit = Some(limit(9_000_000));
    observed.status.pods[1].egress_limit = Some(limit(4_000_000));
    index.apply_observed(observed.clone());
    assert_eq!(index.summary(&web.key).unwrap().tally.strictest, Some((limit(4_000_000), 1)));
    observed.status.pods[0].egress_limit = Some(limit(4_000_000));
    index.apply_observed(observed.clone());
    assert_eq!(index.summary(&web.key).unwrap().tally.strictest, Some((limit(4_000_000), 2)));
    observed.generation = 2;
    index.apply_observed(observed);
    assert_eq!(index.summary(&web.key).unwrap().tally.strictest, None);
}

#[test]
fn limits_of_nodes_are_told_of_pods_that_are_enforced_and_go_away() {
    let (mut index, web, id) = two_pods_on_a_node();
    let mut observed = reported(&index, &id, 1, PodState::Enforced);
    observed.status.pods[1].reason = l7egg_crds::REASON_LIMIT_REACHED.into();
    observed.status.pods[1].message = "map LEARNED is full".into();
    index.apply_observed(observed.clone());
    let tally = index.summary(&web.key).unwrap().tally;
    assert_eq!((tally.enforced, tally.limited), (2, 1));
    assert_eq!(tally.limits[0].message, "LimitReached: map LEARNED is full");
    observed.status.pods[1].reason.clear();
    observed.status.pods[1].message.clear();
    index.apply_observed(observed);
    assert_eq!(index.summary(&web.key).unwrap().tally.limited, 0);
}

#[test]
fn what_is_to_be_said_of_enforced_pods_is_told() {
    let (mut index, web, id) = two_pods_on_a_node();
    index.apply_observed(reported(&index, &id, 1, PodState::Enforced));
    let tally = index.summary(&web.key).unwrap().tally;
    assert_eq!((tally.enforced, tally.pending.len()), (2, 0));
    assert_eq!(tally.notes[0].message, "Why: so");
}

fn booted(boot_id: Option<&str>) -> Node {
    let boot_id = boot_id.map(str::to_owned);
    Node { name: "n1".into(), labels: labels(&[]), host: l7egg_crds::AssignedHost::default(), boot_id }
}

#[test]
fn reports_of_another_boot_of_the_node_do_not_count() {
    let (mut index, web, id) = two_pods_on_a_node();
    index.settle();
    index.apply_node(booted(Some("first")));
    let mut observed = reported(&index, &id, 1, PodState::Enforced);
    observed.status.boot_id = Some("first".into());
    index.apply_observed(observed.clone());
    assert_eq!(counts(&mut index, &web), (2, 2, 0));

    // The node restarts, and its agent does not come back.
    index.take_changes();
    index.apply_node(booted(Some("second")));
    assert!(index.take_changes().status.contains(&web.key));
    let tally = index.summary(&web.key).unwrap().tally;
    assert_eq!((tally.selected, tally.enforced, tally.failed), (2, 0, 0));
    let message = "node n1 has restarted since its agent reported";
    assert_eq!(tally.pending[0], Trouble { subject: "pod shop/a on n1".into(), message: message.into() });

    observed.status.boot_id = Some("second".into());
    index.apply_observed(observed.clone());
    assert_eq!(counts(&mut index, &web), (2, 2, 0));
    // Failures of before are none of now.
    observed.status.boot_id = Some("first".into());
    observed.status.pods[0].state = PodState::Failed;
    index.apply_observed(observed);
    assert_eq!(counts(&mut index, &web), (2, 0, 0));
}

#[test]
fn who_does_not_tell_of_a_boot_counts() {
    let (mut index, web, id) = two_pods_on_a_node();
    index.settle();
    index.apply_node(booted(Some("first")));
    let mut observed = reported(&index, &id, 1, PodState::Enforced);
    index.apply_observed(observed.clone());
    assert_eq!(counts(&mut index, &web), (2, 2, 0), "an agent of before");
    index.apply_node(booted(None));
    observed.status.boot_id = Some("first".into());
    index.apply_observed(observed);
    assert_eq!(counts(&mut index, &web), (2, 2, 0), "a kubelet that has not told");
    index.apply_node(booted(Some("second")));
    assert_eq!(counts(&mut index, &web), (2, 0, 0));
    index.remove_node("n1");
    assert_eq!(counts(&mut index, &web), (2, 2, 0), "no node");
}
