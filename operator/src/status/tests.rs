use std::sync::Arc;

use kube::core::Selector;
use l7egg_crds::PolicySpec;

use super::*;
use crate::index::{Accepted, Egg, EggKey, Namespaces, Rejection, Selection};

fn egg(generation: i64, status: EggStatus) -> Egg {
    let selection = Selection::Pods { namespaces: Namespaces::One("shop".into()), pods: Selector::default() };
    Egg {
        key: EggKey::egg("shop", "web"),
        uid: "u".into(),
        generation,
        resource_version: 1,
        spec: Ok(Accepted { selection, policy: Arc::new(PolicySpec::default()) }),
        status,
    }
}

fn rejected(generation: i64) -> Egg {
    let rejection = Rejection { reason: "Invalid", message: "spec.egress[0]: wrong".into(), selection: None };
    Egg { spec: Err(rejection), ..egg(generation, EggStatus::default()) }
}

fn trouble(name: &str, message: &str) -> Trouble {
    Trouble { subject: format!("pod shop/{name} on n1"), message: message.into() }
}

fn of(egg: &Egg, tally: Tally, second: i64) -> EggStatus {
    let in_force = egg.spec.is_ok().then_some(egg.generation);
    compute(&Summary { egg, in_force, is_for_nodes: false, tally }, Timestamp::from_second(second).unwrap())
}

fn programmed_of(status: &EggStatus) -> (ConditionStatus, &str, &str) {
    let condition = find(status, CONDITION_PROGRAMMED).unwrap();
    (condition.status, &condition.reason, &condition.message)
}

#[test]
fn stages_of_an_egg() {
    let web = egg(2, EggStatus::default());
    let none = of(&web, Tally::default(), 1);
    assert_eq!(none.observed_generation, Some(2));
    assert_eq!(find(&none, CONDITION_ACCEPTED).unwrap().status, ConditionStatus::True);
    assert_eq!(programmed_of(&none), (ConditionStatus::True, "NoPods", "no scheduled pod is selected"));

    let waiting = Tally {
        selected: 6,
        enforced: 1,
        pending: vec![trouble("a", "CgroupNotFound: not yet"), trouble("b", "")],
        ..Tally::default()
    };
    let status = of(&web, waiting, 1);
    assert_eq!(
        programmed_of(&status),
        (
            ConditionStatus::False,
            "Pending",
            "1 of 6 pods enforced; waiting for pod shop/a on n1 (CgroupNotFound: not yet), pod shop/b on n1, \
             3 more"
        )
    );

    let failed =
        Tally { selected: 2, failed: 1, failures: vec![trouble("a", "NoBtf: no BTF")], ..Tally::default() };
    let status = of(&web, failed, 1);
    assert_eq!(status.pods, PodCounts { selected: 2, failed: 1, ..PodCounts::default() });
    assert_eq!(
        programmed_of(&status),
        (ConditionStatus::False, "Failed", "1 of 2 pods failed: pod shop/a on n1 (NoBtf: no BTF)")
    );

    let status = of(&web, Tally { selected: 2, enforced: 2, ..Tally::default() }, 1);
    assert_eq!(programmed_of(&status), (ConditionStatus::True, "Programmed", "2 of 2 pods enforced"));
}

#[test]
fn a_rejected_egg_says_why_and_what_stays() {
    let web = rejected(3);
    let status = of(&web, Tally::default(), 1);
    let accepted = find(&status, CONDITION_ACCEPTED).unwrap();
    assert_eq!((accepted.status, accepted.reason.as_str()), (ConditionStatus::False, "Invalid"));
    assert_eq!(accepted.message, "spec.egress[0]: wrong");
    assert_eq!(programmed_of(&status).1, "NotAccepted");
    assert_eq!(status.in_force_generation, None);

    let tally = Tally { selected: 2, enforced: 2, ..Tally::default() };
    let summary = Summary { egg: &web, in_force: Some(2), is_for_nodes: false, tally };
    let status = compute(&summary, Timestamp::UNIX_EPOCH);
    assert_eq!(
        programmed_of(&status),
        (
            ConditionStatus::False,
            "NotAccepted",
            "the Egg was not accepted; generation 2 stays in force: 2 of 2 pods enforced"
        )
    );
    assert_eq!(status.in_force_generation, Some(2));
    let summary =
        Summary { egg: &egg(4, status), in_force: Some(4), is_for_nodes: false, tally: Tally::default() };
    assert_eq!(compute(&summary, Timestamp::UNIX_EPOCH).in_force_generation, None, "it is the present one");
}

#[test]
fn transition_times_change_with_the_truth_only() {
    let time = |status: &EggStatus, type_| find(status, type_).unwrap().last_transition_time.0.as_second();
    let first = of(&egg(1, EggStatus::default()), Tally::default(), 100);
    assert_eq!((time(&first, CONDITION_ACCEPTED), time(&first, CONDITION_PROGRAMMED)), (100, 100));
    let waiting = of(&egg(1, first), Tally { selected: 1, ..Tally::default() }, 200);
    assert_eq!((time(&waiting, CONDITION_ACCEPTED), time(&waiting, CONDITION_PROGRAMMED)), (100, 200));
    let more = of(&egg(2, waiting), Tally { selected: 2, ..Tally::default() }, 300);
    assert_eq!((time(&more, CONDITION_ACCEPTED), time(&more, CONDITION_PROGRAMMED)), (100, 200));
}

#[test]
fn the_same_news_give_the_same_status() {
    let tally = || Tally { selected: 2, enforced: 2, ..Tally::default() };
    let first = of(&egg(1, EggStatus::default()), tally(), 100);
    assert_eq!(of(&egg(1, first.clone()), tally(), 900), first);
}

#[test]
fn times_have_whole_seconds() {
    let summary = Summary {
        egg: &egg(1, EggStatus::default()),
        in_force: Some(1),
        is_for_nodes: false,
        tally: Tally::default(),
    };
    let status = compute(&summary, Timestamp::new(7, 999_999_999).unwrap());
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<EggStatus>(&json).unwrap(), status);
}

#[test]
fn long_messages_are_cut() {
    let failures = vec![trouble("a", &"ö".repeat(5_000))];
    let status =
        of(&egg(1, EggStatus::default()), Tally { selected: 1, failed: 1, failures, ..Tally::default() }, 1);
    let (_, _, message) = programmed_of(&status);
    assert!(message.len() <= MAX_MESSAGE && message.ends_with(" ..."));
}

#[test]
fn only_pods_that_came_can_wait() {
    let status = |generation, selected, enforced, failed| {
        of(
            &egg(generation, EggStatus::default()),
            Tally { selected, enforced, failed, ..Tally::default() },
            1,
        )
    };
    assert!(can_wait(&status(1, 2, 2, 0), &status(1, 3, 0, 0)));
    assert!(!can_wait(&status(1, 2, 2, 0), &status(2, 2, 0, 0)), "an edit");
    assert!(!can_wait(&status(1, 2, 2, 0), &status(1, 2, 1, 1)), "a failure");
    assert!(!can_wait(&status(1, 2, 1, 0), &status(1, 2, 2, 0)), "good news");
    assert!(!can_wait(&EggStatus::default(), &status(1, 2, 0, 0)), "the first status");
}

#[test]
fn the_strictest_limit_of_the_pods() {
    let limit = |rate, of: &str| l7egg_crds::EgressLimit { bits_per_second: rate, of: of.into() };
    let node = |limit, pods| Tally { selected: 2, strictest: Some((limit, pods)), ..Tally::default() };
    let web = egg(2, EggStatus::default());
    let limit_of = |tallies: &[Tally]| {
        let mut tally = Tally::default();
        tallies.iter().for_each(|node| tally.add(node));
        of(&web, tally, 1).egress_limit
    };
    let ours = node(limit(5_000_000, "Egg shop/web"), 2);
    let stricter = node(limit(2_000_000, "ClusterEgg all"), 1);
    assert_eq!(limit_of(&[Tally::default()]), "");
    assert_eq!(limit_of(&[ours.clone(), ours.clone()]), "5M of Egg shop/web");
    let free = Tally { selected: 2, ..Tally::default() };
    assert_eq!(limit_of(&[ours.clone(), free]), "5M of Egg shop/web (2 of 4 pods)");
    for order in [[&ours, &stricter], [&stricter, &ours]] {
        let tallies: Vec<Tally> = order.into_iter().cloned().collect();
        assert_eq!(limit_of(&tallies), "2M of ClusterEgg all (1 of 4 pods)");
    }
}

#[test]
fn a_limit_of_a_node_is_a_reason_of_what_is_programmed() {
    let limits = vec![trouble("a", "LimitReached: map LEARNED is full")];
    let tally = Tally { selected: 2, enforced: 2, limited: 2, limits, ..Tally::default() };
    let status = of(&egg(1, EggStatus::default()), tally, 1);
    let message = "2 of 2 pods enforced; a limit is reached: pod shop/a on n1 (LimitReached: map LEARNED is full), 1 more";
    assert_eq!(programmed_of(&status), (ConditionStatus::True, "LimitReached", message));
}
