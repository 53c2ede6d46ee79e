use super::*;

/// An Egg with a pod on each of n1 and n2, and its assignments written.
fn written() -> (Index, Egg) {
    let mut index = Index::default();
    let web = egg("shop", "web", 1, app("web"), "10.0.0.0/8");
    index.apply_egg(web.clone());
    index.apply_pod(pod("shop", "a", "n1", &[("app", "web")]));
    index.apply_pod(pod("shop", "b", "n2", &[("app", "web")]));
    for node in ["n1", "n2"] {
        index.apply_observed(stored(&index, &key(&web, node), 1));
    }
    index.settle();
    index.take_changes();
    (index, web)
}

#[test]
fn an_edit_marks_every_node_of_the_egg_and_carries_its_generation() {
    let (mut index, _) = written();
    let edited = egg("shop", "web", 2, app("web"), "192.0.2.0/24");
    index.apply_egg(edited.clone());
    assert_eq!(dirty(&mut index), only(&["shop/web.n1", "shop/web.n2"]));
    let assignment = index.desired(&key(&edited, "n1")).unwrap();
    assert_eq!(assignment.egg.generation, 2);
    assert_eq!(*assignment.policy, policy("192.0.2.0/24"));
}

#[test]
fn another_selector_leaves_old_nodes_and_enters_new_ones() {
    let (mut index, _) = written();
    index.apply_pod(pod("shop", "c", "n3", &[("app", "db")]));
    let edited = egg("shop", "web", 2, app("db"), "10.0.0.0/8");
    index.apply_egg(edited.clone());
    assert_eq!(dirty(&mut index), only(&["shop/web.n1", "shop/web.n2", "shop/web.n3"]));
    assert_eq!(index.desired(&key(&edited, "n1")), None);
    assert_eq!(pods_of(&index, &key(&edited, "n3")), ["c"]);
}

#[test]
fn a_removed_egg_marks_all_it_had() {
    let (mut index, web) = written();
    index.remove_egg(&web.key);
    assert_eq!(dirty(&mut index), only(&["shop/web.n1", "shop/web.n2"]));
    assert_eq!(index.desired(&key(&web, "n1")), None);
    assert!(index.observed(&key(&web, "n1")).is_some(), "to be deleted by the operator");
    assert_eq!(index.summary(&web.key), None);
}

#[test]
fn an_egg_of_the_same_name_is_another_egg() {
    let (mut index, web) = written();
    let again = Egg { uid: "another".into(), ..rejected(web.clone(), 1) };
    index.apply_egg(again);
    assert_eq!(index.desired(&key(&web, "n1")), None, "what the old one enforced is not the new one's");
}

#[test]
fn a_rejected_egg_enforces_nothing_but_knows_its_pods() {
    let mut index = Index::default();
    index.settle();
    let web = rejected(egg("shop", "web", 1, app("web"), "10.0.0.0/8"), 1);
    index.apply_egg(web.clone());
    index.apply_pod(pod("shop", "a", "n1", &[("app", "web")]));
    assert_eq!(index.desired(&key(&web, "n1")), None);
    let summary = index.summary(&web.key).unwrap();
    assert_eq!((summary.in_force, summary.tally.selected), (None, 1));
}

#[test]
fn a_rejected_edit_keeps_the_last_accepted_policy_for_old_pods_and_new() {
    let (mut index, _) = written();
    let mut broken = rejected(egg("shop", "web", 2, app("nothing"), "192.0.2.0/24"), 2);
    index.apply_egg(broken.clone());
    let assignment = index.desired(&key(&broken, "n1")).unwrap();
    assert_eq!((assignment.egg.generation, &*assignment.policy), (1, &policy("10.0.0.0/8")));
    assert_eq!(Some(&assignment), index.observed(&key(&broken, "n1")).unwrap().assignment.as_ref());
    index.apply_pod(pod("shop", "c", "n3", &[("app", "web")]));
    assert_eq!(pods_of(&index, &key(&broken, "n3")), ["c"]);
    assert_eq!(index.summary(&broken.key).unwrap().in_force, Some(1));

    broken.spec = egg("shop", "web", 3, app("web"), "192.0.2.0/24").spec;
    broken.generation = 3;
    index.apply_egg(broken.clone());
    assert_eq!(index.desired(&key(&broken, "n3")).unwrap().egg.generation, 3);
}

/// What an operator finds that starts when the Egg is not acceptable, in both orders of the lists.
#[test]
fn a_restart_finds_the_last_accepted_policy_in_the_assignments() {
    let (first, web) = written();
    let observed = || [stored(&first, &key(&web, "n1"), 1), stored(&first, &key(&web, "n2"), 1)];
    for eggs_first in [true, false] {
        let mut index = Index::default();
        let mut broken = rejected(web.clone(), 2);
        let Err(rejection) = &mut broken.spec else { unreachable!() };
        rejection.selection = None;
        if eggs_first {
            index.apply_egg(broken.clone());
        }
        index.apply_pod(pod("shop", "a", "n1", &[("app", "web")]));
        index.apply_pod(pod("shop", "b", "n2", &[("app", "web")]));
        index.apply_pod(pod("shop", "c", "n2", &[("app", "web")]));
        observed().into_iter().for_each(|observed| index.apply_observed(observed));
        if !eggs_first {
            index.apply_egg(broken.clone());
        }
        index.settle();
        for node in ["n1", "n2"] {
            let id = key(&web, node);
            assert_eq!(index.desired(&id), index.observed(&id).unwrap().assignment.clone(), "{node}");
        }
        // A pod that it had and that is gone; then it is mended, and selects as it says again.
        index.remove_pod(&ObjectKey::new("shop", "a"));
        assert_eq!(index.desired(&key(&web, "n1")), None);
        index.apply_egg(Egg { generation: 3, ..web.clone() });
        assert_eq!(pods_of(&index, &key(&web, "n2")), ["b", "c"]);
    }
}

#[test]
fn after_a_restart_a_readable_selector_still_takes_in_new_pods() {
    let (first, web) = written();
    let mut index = Index::default();
    index.apply_observed(stored(&first, &key(&web, "n1"), 1));
    index.apply_pod(pod("shop", "a", "n1", &[("app", "web")]));
    index.apply_egg(rejected(web.clone(), 2));
    index.settle();
    index.apply_pod(pod("shop", "c", "n9", &[("app", "web")]));
    assert_eq!(index.desired(&key(&web, "n9")).unwrap().egg.generation, 1);
}

#[test]
fn what_another_egg_of_that_name_enforced_is_not_taken_up() {
    let (first, web) = written();
    let mut index = Index::default();
    index.apply_observed(stored(&first, &key(&web, "n1"), 1));
    index.apply_pod(pod("shop", "a", "n1", &[("app", "web")]));
    index.apply_egg(Egg { uid: "another".into(), ..rejected(web.clone(), 2) });
    index.settle();
    assert_eq!(index.desired(&key(&web, "n1")), None);
}

#[test]
fn a_restart_finds_nothing_to_write() {
    let (first, web) = written();
    let mut index = Index::default();
    index.apply_pod(pod("shop", "a", "n1", &[("app", "web")]));
    index.apply_pod(pod("shop", "b", "n2", &[("app", "web")]));
    for node in ["n1", "n2"] {
        index.apply_observed(stored(&first, &key(&web, node), 1));
    }
    index.apply_egg(web);
    index.settle();
    for id in index.take_changes().desired.into_keys() {
        assert_eq!(index.desired(&id), index.observed(&id).unwrap().assignment.clone());
    }
}

#[test]
fn news_of_a_status_mark_the_status_only() {
    let (mut index, web) = written();
    let status = EggStatus { observed_generation: Some(1), ..EggStatus::default() };
    index.apply_egg(Egg { status, resource_version: 5, ..web.clone() });
    let changes = index.take_changes();
    assert!(changes.desired.is_empty() && changes.observed.is_empty());
    assert_eq!(changes.status.len(), 1);
    // Older news, as a watch brings them after the answer to a write.
    index.apply_egg(Egg { resource_version: 4, ..web.clone() });
    assert_eq!(index.egg(&web.key).unwrap().status.observed_generation, Some(1));
    assert_eq!(index.take_changes(), Changes::default());
}

#[test]
fn the_answer_to_a_status_write_does_not_bring_back_a_deleted_egg() {
    let (mut index, web) = written();
    index.remove_egg(&web.key);
    index.status_written(&web.key, &web.uid, 9, EggStatus::default());
    assert_eq!(index.egg(&web.key), None);
}

#[test]
fn assignments_share_one_policy() {
    let (mut index, web) = written();
    let mut observed = stored(&index, &key(&web, "n1"), 1);
    observed.resource_version = 9;
    observed.assignment.as_mut().unwrap().policy = Arc::new(policy("10.0.0.0/8"));
    index.apply_observed(observed);
    let kept = &index.observed(&key(&web, "n1")).unwrap().assignment.as_ref().unwrap().policy;
    assert!(Arc::ptr_eq(kept, &index.desired(&key(&web, "n1")).unwrap().policy));
}

#[test]
fn mark_all_marks_what_is_and_what_is_to_be() {
    let (mut index, web) = written();
    index.remove_egg(&web.key);
    index.apply_egg(egg("shop", "new", 1, app("web"), "10.0.0.0/8"));
    index.take_changes();
    index.mark_all();
    assert_eq!(dirty(&mut index), only(&["shop/web.n1", "shop/web.n2", "shop/new.n1", "shop/new.n2"]));
}
