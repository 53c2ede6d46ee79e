use serde_json::json;

use super::*;
use crate::resolvers::{NodeResolvers, resolv_conf};
use crate::testing::{AssignmentBuilder, assignment, inventory_of};

fn desired_of(assignments: &[AssignmentBuilder]) -> Desired {
    let node = NodeResolvers {
        cluster: vec!["10.96.0.10".parse().unwrap()],
        node: vec!["198.18.0.53".parse().unwrap()],
        ..NodeResolvers::default()
    };
    desired(
        &inventory_of(assignments),
        &|pod| resolv_conf(pod, None, &node),
        &|_, _| false,
        &mut PolicyCache::default(),
    )
}

#[test]
fn eggs_of_one_pod_become_one_policy() {
    let both = desired_of(&[
        assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2"),
        assignment("b").allow("192.0.2.0/24").pod("p1"),
    ]);
    assert!(both.knows_all_pods);
    let p1 = &both.pods["p1"];
    assert_eq!(p1.eggs, ["Egg shop/a", "Egg shop/b"]);
    assert_eq!(p1.policy.as_ref().unwrap().cidrs.len(), 2);
    let p2 = &both.pods["p2"];
    assert_eq!(p2.policy.as_ref().unwrap().cidrs.len(), 1);
    assert_ne!(p1.policy.as_ref().unwrap().digest, p2.policy.as_ref().unwrap().digest);
}

#[test]
fn pods_of_one_egg_share_one_compiled_policy() {
    let pods = desired_of(&[assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2")]).pods;
    assert!(Arc::ptr_eq(pods["p1"].policy.as_ref().unwrap(), pods["p2"].policy.as_ref().unwrap()));
}

#[test]
fn resolvers_are_part_of_the_policy() {
    let pods = desired_of(&[assignment("a").pod("p1").pod_asking("p2", "9.9.9.9")]).pods;
    assert_ne!(pods["p1"].policy.as_ref().unwrap().digest, pods["p2"].policy.as_ref().unwrap().digest);
}

#[test]
fn pods_in_the_nodes_network_ask_its_resolvers_and_have_no_limit() {
    let pods = desired_of(&[assignment("a").shape("5M", "Pod").pod("p1").host_network_pod("p2")]).pods;
    assert_ne!(pods["p1"].policy.as_ref().unwrap().digest, pods["p2"].policy.as_ref().unwrap().digest);
    assert!(pods["p1"].limits.failure.is_none());
    let limits = &pods["p2"].limits;
    assert_eq!((&limits.caps, &limits.strictest), (&Some(vec![]), &None));
    let failure = limits.failure.as_ref().unwrap();
    assert_eq!(failure.reason, "HostNetworkNotShaped");
    assert!(failure.message.contains("limit of Egg shop/a does not hold"), "{}", failure.message);
    let pods = desired_of(&[assignment("a").host_network_pod("p2")]).pods;
    assert!(pods["p2"].limits.failure.is_none());
}

#[test]
fn what_cannot_be_compiled_leaves_the_other_eggs() {
    let pods = desired_of(&[
        assignment("good").allow("10.0.0.0/8").pod("p1"),
        assignment("bad").allow("not a network").pod("p1").pod("p2"),
    ])
    .pods;
    let failure = pods["p1"].policy.as_ref().unwrap_err();
    assert_eq!(failure.reason, "PolicyInvalid");
    assert!(failure.message.contains("Egg shop/bad"), "{}", failure.message);
    let fallback = pods["p1"].fallback.as_ref().unwrap();
    assert_eq!(fallback.assignments.len(), 1);
    assert_eq!(fallback.policy.cidrs.len(), 1);
    assert!(pods["p2"].fallback.is_none());
}

#[test]
fn an_egg_for_certain_containers_divides_the_pod() {
    let pods = desired_of(&[
        assignment("app").allow("10.0.0.0/8").containers(&["app", "init"]).pod("p1"),
        assignment("proxy").allow("192.0.2.0/24").containers(&["proxy"]).pod("p1").pod("p2"),
        assignment("all").allow("198.51.100.0/24").pod("p2").pod("p3"),
    ])
    .pods;
    let division = |uid: &str| pods[uid].division.clone().unwrap();
    let cidrs =
        |uid: &str, container: &str| division(uid).policy_of(container).map(|policy| policy.cidrs.len());
    assert_eq!((cidrs("p1", "app"), cidrs("p1", "init"), cidrs("p1", "proxy")), (Some(1), Some(1), Some(1)));
    assert_eq!(cidrs("p1", "other"), None);
    // What belongs to no container.
    assert!(pods["p1"].policy.as_ref().unwrap().cidrs.is_empty());
    assert_eq!((cidrs("p2", "proxy"), cidrs("p2", "other")), (Some(2), Some(1)));
    assert!(pods["p3"].division.is_none());
    assert_eq!(pods["p3"].policy.as_ref().unwrap().cidrs.len(), 1);
}

#[test]
fn a_bad_egg_leaves_containers_the_others() {
    let pods = desired_of(&[
        assignment("good").allow("10.0.0.0/8").containers(&["app"]).pod("p1"),
        assignment("bad").allow("not a network").containers(&["app"]).pod("p1"),
    ])
    .pods;
    assert_eq!(pods["p1"].policy.as_ref().unwrap_err().reason, "PolicyInvalid");
    assert_eq!(pods["p1"].fallback.as_ref().unwrap().assignments.len(), 1);
    assert!(pods["p1"].division.as_ref().unwrap().policy_of("app").is_some());
}

fn strictest(pod: &DesiredPod) -> String {
    pod.limits.strictest.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn an_annotation_limits_a_pod_that_no_egg_limits() {
    let of = |eggs: &[AssignmentBuilder]| desired_of(eggs).pods["p1"].clone();
    let annotated = |name: &str| assignment(name).annotated_pod("p1", "3M");
    let pod = of(&[annotated("a"), annotated("b")]);
    assert_eq!(pod.limits.caps.as_ref().unwrap()[0].bits_per_second, 3_000_000);
    assert_eq!(strictest(&pod), "3M of annotation kubernetes.io/egress-bandwidth");
    // An Egg that does nothing else.
    let pod = of(&[annotated("a").audit()]);
    assert_eq!(strictest(&pod), "3M of annotation kubernetes.io/egress-bandwidth");
    // Whoever may write Eggs decides, also for more than the annotation allows.
    let pod = of(&[annotated("a"), annotated("b").shape("5M", "Pod")]);
    assert_eq!(strictest(&pod), "5M of Egg shop/b");
    assert_eq!(pod.limits.caps.unwrap().len(), 1);
    let pod = of(&[annotated("a"), assignment("bad").malformed().pod("p1")]);
    assert_eq!(pod.limits.caps, None);
}

#[test]
fn an_annotation_that_means_nothing_changes_nothing_and_is_told() {
    let pods = desired_of(&[assignment("a").annotated_pod("p1", "fast").pod("p2")]).pods;
    let failure = pods["p1"].limits.failure.as_ref().unwrap();
    assert_eq!(failure.reason, "AnnotationInvalid");
    assert!(failure.message.contains("of pod shop/p1: \"fast\" is not a rate"), "{}", failure.message);
    assert_eq!(pods["p1"].limits.caps, None);
    assert!(pods["p1"].policy.is_ok());
    assert_eq!(pods["p2"].limits.caps, Some(Vec::new()));
}

#[test]
fn caps_of_several_eggs_nest_and_an_unreadable_egg_leaves_them_as_they_are() {
    let shaped = |name: &str, rate: &str, scope: &str| assignment(name).shape(rate, scope).pod("p1");
    let pods = desired_of(&[
        shaped("a", "5M", "Pod"),
        shaped("b", "8M", "Pod").share(None, 1),
        assignment("c").pod("p1"),
    ])
    .pods;
    let caps = pods["p1"].limits.caps.as_ref().unwrap();
    assert_eq!(caps.iter().map(|cap| cap.bits_per_second).collect::<Vec<_>>(), [5_000_000]);
    assert_eq!(strictest(&pods["p1"]), "5M of Egg shop/a");
    let pods = desired_of(&[
        shaped("a", "5M", "Pod"),
        shaped("b", "8M", "Egg").share(None, 2_000_000),
        shaped("c", "8M", "Namespace").share(Some("other"), 1).share(Some("shop"), 6_000_000),
    ])
    .pods;
    let caps = pods["p1"].limits.caps.as_ref().unwrap();
    let names: Vec<String> = caps.iter().map(|cap| cap.name.to_string()).collect();
    assert_eq!(names, ["egg/egg-b", "pod/p1", "namespace/shop/egg-c"]);
    assert_eq!(caps[2].bits_per_second, 6_000_000);
    assert_eq!(strictest(&pods["p1"]), "2M of Egg shop/b");
    let pods = desired_of(&[shaped("a", "5M", "Pod"), assignment("bad").malformed().pod("p1")]).pods;
    assert_eq!(pods["p1"].limits.caps, None);
}

#[test]
fn too_much_together_is_a_failure_of_all() {
    let many = |name: &str, first: i32| {
        (0..40).fold(assignment(name).pod("p1"), |egg, n| egg.allow_port("10.0.0.0/8", first + n))
    };
    let pods = desired_of(&[many("a", 1000), many("b", 2000)]).pods;
    assert_eq!(pods["p1"].policy.as_ref().unwrap_err().reason, "PolicyTooLarge");
    // What fits is better than nothing: a new pod has that, and one that runs keeps what it has.
    assert_eq!(pods["p1"].fallback.as_ref().unwrap().assignments.len(), 1);
}

#[test]
fn of_too_much_together_the_clusters_eggs_stay() {
    let many = |name: &str, first: i32| {
        (0..40).fold(assignment(name).pod("p1"), |egg, n| egg.allow_port("10.0.0.0/8", first + n))
    };
    let pods = desired_of(&[many("a", 1000), many("b", 2000), many("c", 3000).of_cluster()]).pods;
    let fallback = pods["p1"].fallback.as_ref().unwrap();
    assert_eq!(fallback.assignments.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn what_would_free_a_pod_is_no_fallback() {
    let many = |name: &str, first: i32| {
        (0..40).fold(assignment(name).pod("p1"), |egg, n| egg.allow_port("10.0.0.0/8", first + n))
    };
    let fallback = |eggs: &[AssignmentBuilder]| {
        let fallback = desired_of(eggs).pods["p1"].fallback.as_ref().map(|it| it.assignments.clone());
        fallback.map(|keys| keys.into_iter().map(|key| key.name).collect::<Vec<_>>())
    };
    let audited = || many("audited", 1000).of_cluster().audit();
    assert_eq!(fallback(&[audited(), many("b", 2000)]).unwrap(), ["b"], "who enforces comes first");
    let sidecar = || many("sidecar", 1000).of_cluster().containers(&["proxy"]);
    assert_eq!(
        fallback(&[sidecar(), many("b", 2000)]).unwrap(),
        ["b"],
        "without it other containers would be free"
    );
    let other = many("other", 2000).containers(&["app"]);
    assert_eq!(fallback(&[sidecar(), other]), None, "one or the other would be free");
    assert_eq!(fallback(&[sidecar(), many("b", 2000).containers(&["proxy"])]).unwrap(), ["sidecar"]);
}

#[test]
fn what_would_take_back_a_denial_is_no_fallback() {
    let many = |name: &str, first: i32| {
        (0..40).fold(assignment(name).pod("p1"), |egg, n| egg.allow_port("10.0.0.0/8", first + n))
    };
    let fallback = |eggs: &[AssignmentBuilder]| {
        let fallback = desired_of(eggs).pods["p1"].fallback.as_ref().map(|it| it.assignments.clone());
        fallback.map(|keys| keys.into_iter().map(|key| key.name).collect::<Vec<_>>())
    };
    let denying = |name: &str, first| many(name, first).deny("169.254.169.254/32");
    // The namespace's editor cannot have it left out, for whichever containers it is.
    let of_cluster = || denying("cluster", 1000).of_cluster();
    assert_eq!(fallback(&[of_cluster(), many("own", 2000)]).unwrap(), ["cluster"]);
    assert_eq!(fallback(&[of_cluster().containers(&["app"]), many("own", 2000)]), None);
    assert_eq!(fallback(&[denying("a", 1000), many("b", 2000)]).unwrap(), ["a"]);
    assert_eq!(fallback(&[denying("a", 1000), denying("b", 2000)]), None);
    let narrow = many("b", 2000).dns(json!({"refuseUnmatched": true}));
    assert_eq!(fallback(&[denying("a", 1000), narrow]), None);
    // One that fails alone, as an agent of another version may find, is one that is left out.
    let invalid = || assignment("bad").allow("not a network").pod("p1");
    assert_eq!(fallback(&[invalid().deny("10.0.0.0/8"), many("b", 2000)]), None);
    assert_eq!(fallback(&[invalid(), many("b", 2000).audit()]), None);
    let unreadable = || assignment("bad").malformed().pod("p1");
    assert_eq!(fallback(&[unreadable(), many("b", 2000).audit()]), None);
    assert_eq!(fallback(&[unreadable(), many("b", 2000).containers(&["app"])]), None);
    assert_eq!(fallback(&[unreadable(), many("b", 2000)]).unwrap(), ["b"]);
}

#[test]
fn a_hundred_eggs_that_do_not_fit_are_found_out_in_few_attempts() {
    let eggs: Vec<_> = (0..100)
        .map(|n| {
            let egg = assignment(&format!("egg-{n:02}")).pod("p1");
            (0..2).fold(egg, |egg, port| egg.allow_port("10.0.0.0/8", 1000 + 10 * n + port))
        })
        .collect();
    let pods = desired_of(&eggs).pods;
    let kept = &pods["p1"].fallback.as_ref().unwrap().assignments;
    assert_eq!(kept.len(), 32, "of each two of 64 lists");
}

#[test]
fn an_unreadable_assignment_touches_nothing_but_its_pods() {
    let found = desired_of(&[
        assignment("good").allow("10.0.0.0/8").pod("p1").pod("p3"),
        assignment("bad").malformed().pod("p1").pod("p2"),
    ]);
    assert_eq!(found.pods["p1"].policy.as_ref().unwrap_err().reason, "AssignmentUnreadable");
    assert_eq!(found.pods["p1"].fallback.as_ref().unwrap().assignments.len(), 1);
    assert!(found.pods["p2"].policy.is_err());
    assert!(found.pods["p3"].policy.is_ok());
    assert!(found.knows_all_pods);
    assert!(!desired_of(&[assignment("bad").without_readable_pods()]).knows_all_pods);
}
