use super::*;

/// Egg `web` for pods with app=web in `shop`, with two such pods on n1 and one on n2.
fn shop() -> (Index, Egg) {
    let mut index = Index::default();
    let web = egg("shop", "web", 1, app("web"), "10.0.0.0/8");
    index.apply_egg(web.clone());
    index.apply_pod(pod("shop", "b", "n1", &[("app", "web")]));
    index.apply_pod(pod("shop", "a", "n1", &[("app", "web")]));
    index.apply_pod(pod("shop", "c", "n2", &[("app", "web")]));
    index.apply_pod(pod("shop", "d", "n1", &[("app", "db")]));
    index.apply_pod(pod("other", "e", "n1", &[("app", "web")]));
    index.take_changes();
    (index, web)
}

#[test]
fn pods_are_assigned_by_node_in_order() {
    let (index, web) = shop();
    assert_eq!(pods_of(&index, &key(&web, "n1")), ["a", "b"]);
    assert_eq!(pods_of(&index, &key(&web, "n2")), ["c"]);
    assert_eq!(index.desired(&key(&web, "n3")), None);
    let assignment = index.desired(&key(&web, "n1")).unwrap();
    assert_eq!((assignment.node.as_str(), assignment.egg.generation), ("n1", 1));
    assert_eq!(*assignment.policy, policy("10.0.0.0/8"));
}

#[test]
fn the_order_of_news_does_not_matter() {
    let (first, web) = shop();
    let mut index = Index::default();
    index.apply_pod(pod("shop", "a", "n1", &[("app", "web")]));
    index.apply_pod(pod("shop", "b", "n1", &[("app", "web")]));
    index.apply_egg(web.clone());
    assert_eq!(index.desired(&key(&web, "n1")), first.desired(&key(&web, "n1")));
}

#[test]
fn a_pod_marks_only_eggs_that_select_it() {
    let (mut index, _) = shop();
    index.apply_egg(egg("shop", "db", 1, app("db"), "10.0.0.0/8"));
    index.apply_egg(egg("other", "all", 1, Selector::default(), "10.0.0.0/8"));
    index.take_changes();
    index.apply_pod(pod("shop", "new", "n3", &[("app", "web")]));
    assert_eq!(dirty(&mut index), only(&["shop/web.n3"]));
    index.apply_pod(pod("shop", "unselected", "n3", &[("app", "nothing")]));
    assert_eq!(dirty(&mut index), none());
}

#[test]
fn the_same_news_twice_mark_nothing() {
    let (mut index, web) = shop();
    index.apply_pod(pod("shop", "a", "n1", &[("app", "web")]));
    index.apply_egg(web);
    assert_eq!(index.take_changes(), Changes::default());
}

#[test]
fn labels_that_no_selector_reads_mark_nothing() {
    let (mut index, _) = shop();
    index.apply_pod(pod("shop", "a", "n1", &[("app", "web"), ("version", "2")]));
    assert_eq!(dirty(&mut index), none());
}

#[test]
fn a_changed_label_moves_a_pod_out_and_in() {
    let (mut index, web) = shop();
    index.apply_pod(pod("shop", "a", "n1", &[("app", "db")]));
    assert_eq!(dirty(&mut index), only(&["shop/web.n1"]));
    assert_eq!(pods_of(&index, &key(&web, "n1")), ["b"]);
    index.apply_pod(pod("shop", "d", "n1", &[("app", "web")]));
    assert_eq!(pods_of(&index, &key(&web, "n1")), ["b", "d"]);
}

#[test]
fn the_last_pod_of_a_node_takes_the_assignment_with_it() {
    let (mut index, web) = shop();
    index.remove_pod(&ObjectKey::new("shop", "c"));
    assert_eq!(dirty(&mut index), only(&["shop/web.n2"]));
    assert_eq!(index.desired(&key(&web, "n2")), None);
    index.remove_pod(&ObjectKey::new("shop", "c"));
    index.remove_pod(&ObjectKey::new("nowhere", "c"));
    assert_eq!(dirty(&mut index), none());
}

#[test]
fn a_pod_of_the_same_name_on_another_node_is_another_pod() {
    let (mut index, web) = shop();
    let mut again = pod("shop", "c", "n1", &[("app", "web")]);
    again.assigned.uid = "another".into();
    index.apply_pod(again);
    assert_eq!(dirty(&mut index), only(&["shop/web.n1", "shop/web.n2"]));
    assert_eq!(index.desired(&key(&web, "n2")), None);
    assert_eq!(pods_of(&index, &key(&web, "n1")), ["a", "b", "c"]);
}

#[test]
fn a_new_uid_marks_the_node() {
    let (mut index, _) = shop();
    let mut again = pod("shop", "a", "n1", &[("app", "web")]);
    again.assigned.uid = "another".into();
    index.apply_pod(again);
    assert_eq!(dirty(&mut index), only(&["shop/web.n1"]));
}

#[test]
fn cluster_eggs_follow_namespace_labels() {
    let mut index = Index::default();
    let prod = cluster_egg("prod", Expression::Equal("env".into(), "prod".into()).into(), app("web"));
    index.apply_egg(prod.clone());
    index.apply_pod(pod("shop", "a", "n1", &[("app", "web")]));
    index.apply_pod(pod("test", "b", "n1", &[("app", "web")]));
    assert_eq!(index.desired(&key(&prod, "n1")), None, "the namespaces are not known yet");
    index.apply_namespace("shop", labels(&[("env", "prod")]));
    index.apply_namespace("test", labels(&[("env", "test")]));
    assert_eq!(pods_of(&index, &key(&prod, "n1")), ["a"]);
    index.take_changes();
    index.apply_namespace("test", labels(&[("env", "prod")]));
    assert_eq!(dirty(&mut index), only(&["l7egg-system/cluster.prod.n1"]));
    assert_eq!(pods_of(&index, &key(&prod, "n1")), ["a", "b"]);
    index.apply_namespace("shop", labels(&[]));
    assert_eq!(pods_of(&index, &key(&prod, "n1")), ["b"]);
    index.remove_namespace("test");
    assert_eq!(index.desired(&key(&prod, "n1")), None);
}

#[test]
fn a_namespace_that_is_not_known_is_not_excluded_or_included_by_its_labels() {
    let mut index = Index::default();
    let not_test: Selector = Expression::NotIn("env".into(), ["test".to_owned()].into()).into();
    let others = cluster_egg("others", not_test, Selector::default());
    let all = cluster_egg("all", Selector::default(), Selector::default());
    index.apply_egg(others.clone());
    index.apply_egg(all.clone());
    index.apply_pod(pod("shop", "a", "n1", &[]));
    assert_eq!(index.desired(&key(&others, "n1")), None);
    assert_eq!(pods_of(&index, &key(&all, "n1")), ["a"]);
    index.apply_namespace("shop", labels(&[]));
    assert_eq!(pods_of(&index, &key(&others, "n1")), ["a"]);
}

#[test]
fn a_cluster_egg_never_selects_the_operator_but_an_egg_may() {
    let mut index = Index::default();
    let all = cluster_egg("all", Selector::default(), Selector::default());
    let own = egg("l7egg-system", "own", 1, Selector::default(), "10.0.0.0/8");
    index.apply_egg(all.clone());
    index.apply_egg(own.clone());
    index.apply_namespace("l7egg-system", labels(&[]));
    index.apply_pod(pod("l7egg-system", "l7egg-operator", "n1", &[]));
    assert_eq!(index.desired(&key(&all, "n1")), None);
    assert_eq!(pods_of(&index, &key(&own, "n1")), ["l7egg-operator"]);
}

#[test]
fn all_kinds_of_expressions() {
    let tier = || "tier".to_owned();
    let values = || ["a".to_owned(), "b".to_owned()].into();
    for (expression, expected) in [
        (Expression::In(tier(), values()), vec!["a", "b"]),
        (Expression::NotIn(tier(), values()), vec!["c", "none"]),
        (Expression::Exists(tier()), vec!["a", "b", "c"]),
        (Expression::DoesNotExist(tier()), vec!["none"]),
    ] {
        let mut index = Index::default();
        let one = egg("shop", "one", 1, expression.clone().into(), "10.0.0.0/8");
        index.apply_egg(one.clone());
        for name in ["a", "b", "c"] {
            index.apply_pod(pod("shop", name, "n1", &[("tier", name)]));
        }
        index.apply_pod(pod("shop", "none", "n1", &[]));
        assert_eq!(pods_of(&index, &key(&one, "n1")), expected, "{expression:?}");
    }
}

#[test]
fn containers_are_told_where_the_egg_is_for_certain_ones() {
    let (mut index, mut web) = shop();
    let mut with_containers = pod("shop", "a", "n1", &[("app", "web")]);
    with_containers.assigned.containers = vec!["app".into(), "init".into()];
    index.apply_pod(with_containers);
    let told = |index: &Index, web: &Egg| index.desired(&key(web, "n1")).unwrap().pods[0].containers.clone();
    assert_eq!(told(&index, &web), Vec::<String>::new());
    web.generation = 2;
    let accepted = web.spec.as_mut().unwrap();
    accepted.policy = Arc::new(PolicySpec { containers: vec!["app".into()], ..(*accepted.policy).clone() });
    index.apply_egg(web.clone());
    assert_eq!(told(&index, &web), ["app", "init"]);
}

#[test]
fn pods_in_their_nodes_network_have_no_part_of_a_shared_rate() {
    let mut index = Index::default();
    let web = shaped(egg("shop", "web", 1, Selector::default(), "10.0.0.0/8"), "Egg");
    index.apply_egg(web.clone());
    let in_nodes_network = |mut pod: Pod| {
        pod.assigned.host_network = true;
        pod
    };
    index.apply_pod(pod("shop", "a", "n1", &[]));
    index.apply_pod(in_nodes_network(pod("shop", "b", "n1", &[])));
    index.apply_pod(in_nodes_network(pod("shop", "c", "n2", &[])));
    let parts = |index: &Index, node: &str| {
        let shares = index.desired(&key(&web, node)).unwrap().shares;
        shares.into_iter().map(|share| share.bits_per_second).collect::<Vec<_>>()
    };
    assert_eq!((parts(&index, "n1"), parts(&index, "n2")), (vec![50_000_000], vec![]));
    index.take_changes();

    // Another pod of the same name, before the end of the first is told.
    index.apply_pod(pod("shop", "c", "n2", &[]));
    assert_eq!((parts(&index, "n1"), parts(&index, "n2")), (vec![25_000_000], vec![25_000_000]));
    assert_eq!(dirty(&mut index), only(&["shop/web.n1", "shop/web.n2"]));
    index.apply_pod(in_nodes_network(pod("shop", "c", "n2", &[])));
    index.remove_pod(&ObjectKey::new("shop", "b"));
    assert_eq!((parts(&index, "n1"), parts(&index, "n2")), (vec![50_000_000], vec![]));
}
