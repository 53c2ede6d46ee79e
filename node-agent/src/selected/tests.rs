//! The answers, from objects as the API server has them.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::*;

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

/// As the watch reads it.
fn read(object: &DynamicObject) -> NamedEgg {
    egg(serde_json::from_str(&serde_json::to_string(object).unwrap()).unwrap())
}

fn egg_object(name: &str, mode: &str, generation: i64, accepted: Option<(i64, &str)>) -> DynamicObject {
    let conditions = accepted.map(|(generation, status)| {
        json!([{"type": "Accepted", "status": status, "observedGeneration": generation, "reason": "x", "message": "",
                "lastTransitionTime": "2024-01-01T00:00:00Z"}])
    });
    object(json!({
        "apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg",
        "metadata": {"namespace": "shop", "name": name, "generation": generation},
        "spec": {"podSelector": {"matchLabels": {"app": name}}, "mode": mode},
        "status": {"conditions": conditions.unwrap_or(json!([]))},
    }))
}

fn node_pod(uid: &str, namespace: &str, app: &str) -> NodePod {
    NodePod {
        namespace: namespace.into(),
        name: uid.into(),
        uid: uid.into(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        ..NodePod::default()
    }
}

fn world(pods: &[NodePod], eggs: &[DynamicObject]) -> Selected {
    let mut selected = Selected::default();
    selected.apply(News::Pod(Event::Init));
    selected.apply(News::Egg(Event::Init));
    pods.iter().for_each(|pod| _ = selected.apply(News::Pod(Event::InitApply(pod.clone()))));
    eggs.iter().for_each(|object| _ = selected.apply(News::Egg(Event::InitApply(read(object)))));
    selected.apply(News::Pod(Event::InitDone));
    selected.apply(News::Egg(Event::InitDone));
    selected.apply(News::ClusterEgg(Event::InitDone));
    selected.apply(News::Namespace(Event::InitDone));
    selected
}

fn eggs_of(selected: &Selected, uid: &str) -> Vec<String> {
    match selected.verdict(uid) {
        Verdict::Selected { eggs, .. } => eggs,
        Verdict::Free => Vec::new(),
        Verdict::Unknown => vec!["?".into()],
    }
}

#[test]
fn eggs_select_by_namespace_and_label_and_only_where_they_deny() {
    let pods = [
        node_pod("a", "shop", "web"),
        node_pod("b", "shop", "audited"),
        node_pod("c", "shop", "rejected"),
        node_pod("d", "shop", "new"),
        node_pod("e", "other", "web"),
        NodePod { host_network: true, ..node_pod("f", "shop", "web") },
        NodePod { finished: true, ..node_pod("g", "shop", "web") },
    ];
    let selected = world(
        &pods,
        &[
            egg_object("web", "Enforce", 1, Some((1, "True"))),
            egg_object("audited", "Audit", 1, Some((1, "True"))),
            egg_object("rejected", "Enforce", 1, Some((1, "False"))),
            egg_object("new", "Enforce", 1, None),
        ],
    );
    assert_eq!(eggs_of(&selected, "a"), ["Egg shop/web"]);
    assert_eq!(
        eggs_of(&selected, "d"),
        ["Egg shop/new"],
        "the operator has not looked at it, and may accept it"
    );
    for free in ["b", "c", "e", "f", "g"] {
        assert!(eggs_of(&selected, free).is_empty(), "{free}");
    }
    assert_eq!(eggs_of(&selected, "nobody"), ["?"]);
}

#[test]
fn an_edit_that_is_not_accepted_leaves_what_was() {
    let mut selected =
        world(&[node_pod("a", "shop", "web")], &[egg_object("web", "Enforce", 1, Some((1, "True")))]);
    let mut apply = |object: DynamicObject| {
        selected.apply(News::Egg(Event::Apply(read(&object))));
        eggs_of(&selected, "a").len()
    };
    let edited = |accepted| {
        let mut object = egg_object("web", "Enforce", 2, accepted);
        object.data["spec"]["podSelector"] = json!({"matchLabels": {"app": "other"}});
        object
    };
    assert_eq!(apply(edited(Some((1, "True")))), 1, "not judged yet");
    assert_eq!(apply(edited(Some((2, "False")))), 1, "not accepted");
    assert_eq!(apply(edited(Some((2, "True")))), 0, "accepted");
    // Nor does one count that was never accepted.
    assert_eq!(apply(egg_object("web", "Enforce", 3, Some((3, "False")))), 0);
    assert_eq!(apply(egg_object("web", "Enforce", 3, Some((3, "True")))), 1);
    assert_eq!(apply(egg_object("web", "Audit", 4, Some((4, "True")))), 0);
}

#[test]
fn an_agent_that_starts_after_such_an_edit_goes_by_what_stays_in_force() {
    let pods = [node_pod("a", "shop", "web")];
    let mut rejected = egg_object("web", "Enforce", 2, Some((2, "False")));
    assert_eq!(eggs_of(&world(&pods, &[rejected.clone()]), "a").len(), 0, "none was ever accepted");
    rejected.data["status"]["inForceGeneration"] = json!(1);
    let mut selected = world(&pods, &[rejected]);
    assert_eq!(eggs_of(&selected, "a"), ["Egg shop/web"]);
    let mended = egg_object("web", "Audit", 3, Some((3, "True")));
    selected.apply(News::Egg(Event::Apply(read(&mended))));
    assert_eq!(eggs_of(&selected, "a").len(), 0);
}

#[test]
fn cluster_eggs_select_by_the_labels_of_namespaces_but_never_l7egg_itself() {
    let cluster = |namespaces: Value| {
        let object = json!({
            "apiVersion": "l7egg.dev/v1alpha1", "kind": "ClusterEgg", "metadata": {"name": "all", "generation": 1},
            "spec": {"namespaceSelector": namespaces, "podSelector": {}},
        });
        cluster_egg(serde_json::from_str(&object.to_string()).unwrap())
    };
    let mut selected =
        world(&[node_pod("a", "shop", "web"), node_pod("b", SYSTEM_NAMESPACE, "operator")], &[]);
    assert_eq!(selected.verdict("a"), Verdict::Free);
    selected.apply(News::ClusterEgg(Event::Apply(cluster(Value::Null))));
    assert_eq!(eggs_of(&selected, "a"), ["ClusterEgg all"]);
    assert_eq!(selected.verdict("b"), Verdict::Free);
    selected.apply(News::ClusterEgg(Event::Apply(cluster(json!({"matchLabels": {"team": "x"}})))));
    assert_eq!(selected.verdict("a"), Verdict::Unknown, "nobody has told of its namespace");
    assert_eq!(selected.verdict("b"), Verdict::Free);
    let mut label = |team: &str| {
        let labels: Labels = [("team".to_owned(), team.to_owned())].into();
        let shop = NamedNamespace { name: "shop".into(), labels, is_ending: false };
        selected.apply(News::Namespace(Event::Apply(shop)));
        eggs_of(&selected, "a")
    };
    assert!(label("y").is_empty());
    assert_eq!(label("x"), ["ClusterEgg all"]);
    selected.apply(News::ClusterEgg(Event::Delete(cluster(Value::Null))));
    assert_eq!(selected.verdict("a"), Verdict::Free);
}

#[test]
fn a_namespace_that_nobody_has_told_of_matters_only_where_its_labels_decide() {
    let mut selected = world(&[node_pod("a", "shop", "web"), node_pod("b", "shop", "other")], &[]);
    let object = json!({
        "apiVersion": "l7egg.dev/v1alpha1", "kind": "ClusterEgg", "metadata": {"name": "web", "generation": 1},
        "spec": {"namespaceSelector": {"matchLabels": {"team": "x"}}, "podSelector": {"matchLabels": {"app": "web"}}},
    });
    let egg = cluster_egg(serde_json::from_str(&object.to_string()).unwrap());
    selected.apply(News::ClusterEgg(Event::Apply(egg.clone())));
    assert_eq!([selected.verdict("a"), selected.verdict("b")], [Verdict::Unknown, Verdict::Free]);
    selected.apply(News::ClusterEgg(Event::Apply(NamedEgg { accepted: Some(true), ..egg })));
    assert_eq!(selected.verdict("a"), Verdict::Unknown);
    selected.apply(News::Egg(Event::Apply(read(&egg_object("web", "Enforce", 1, None)))));
    assert_eq!(eggs_of(&selected, "a"), ["Egg shop/web"], "one Egg is enough to know");
}

#[test]
fn an_egg_that_waits_for_finalizers_selects_nobody_any_more() {
    let mut selected =
        world(&[node_pod("a", "shop", "web")], &[egg_object("web", "Enforce", 1, Some((1, "True")))]);
    // The order to delete it is a generation of its own, which nobody judges.
    let mut ending = egg_object("web", "Enforce", 2, Some((1, "True")));
    ending.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2024-01-01T00:00:00Z")).unwrap());
    selected.apply(News::Egg(Event::Apply(read(&ending))));
    assert_eq!(selected.verdict("a"), Verdict::Free);
    assert!(!selected.until_end("a"));
}

#[test]
fn who_is_never_held_is_selected_all_the_same() {
    let mut system = egg_object("web", "Enforce", 1, Some((1, "True")));
    system.metadata.namespace = Some(SYSTEM_NAMESPACE.into());
    let pods = [
        NodePod { host_network: true, ..node_pod("pod-host", "shop", "web") },
        node_pod("pod-system", SYSTEM_NAMESPACE, "web"),
    ];
    let selected = world(&pods, &[egg_object("web", "Enforce", 1, Some((1, "True"))), system]);
    for (uid, egg) in [("pod-host", "Egg shop/web"), ("pod-system", "Egg l7egg-system/web")] {
        assert_eq!(selected.verdict(uid), Verdict::Free, "{uid}");
        assert!(selected.until_end(uid) && selected.selects(uid, egg), "{uid}");
    }
}

#[test]
fn without_full_lists_nothing_is_free() {
    let mut selected = Selected::default();
    selected.apply(News::Pod(Event::Apply(node_pod("a", "shop", "web"))));
    assert_eq!(selected.verdict("a"), Verdict::Unknown);
    selected.apply(News::Egg(Event::Apply(read(&egg_object("web", "Enforce", 1, None)))));
    assert_eq!(eggs_of(&selected, "a"), ["Egg shop/web"], "one Egg is enough to know");
    selected.apply(News::Egg(Event::Delete(read(&egg_object("web", "Enforce", 1, None)))));
    for news in
        [News::Egg(Event::InitDone), News::ClusterEgg(Event::InitDone), News::Namespace(Event::InitDone)]
    {
        assert_eq!(selected.verdict("a"), Verdict::Unknown);
        selected.apply(news);
    }
    assert!(!selected.is_complete());
    // A list replaces what was known.
    selected.apply(News::Pod(Event::Init));
    selected.apply(News::Pod(Event::InitDone));
    assert!(selected.is_complete());
    assert_eq!(selected.verdict("a"), Verdict::Unknown);
}

#[test]
fn what_cannot_be_read_selects_nothing() {
    let mut bad = egg_object("web", "Enforce", 1, Some((1, "True")));
    bad.data["spec"]["podSelector"] = json!(["a"]);
    let mut worse = bad.clone();
    worse.data = json!({"spec": 7, "status": "x"});
    worse.metadata.name = Some("worse".into());
    let selected = world(&[node_pod("a", "shop", "web")], &[bad, worse]);
    assert_eq!(selected.verdict("a"), Verdict::Free);
}

#[test]
fn of_an_egg_nothing_is_kept_but_whom_it_is_for() {
    let mut object = egg_object("web", "Enforce", 1, Some((1, "True")));
    object.data["spec"]["egress"] = json!([{"to": [{"domainNames": vec!["a.test"; 10_000]}]}]);
    object.data["status"]["nodes"] = json!([{"message": "x"}]);
    let read: EggObject = serde_json::from_str(&serde_json::to_string(&object).unwrap()).unwrap();
    assert!(format!("{read:?}").len() < 2000, "{read:?}");
    let named = egg(read);
    assert!(named.selection.is_some() && named.accepted == Some(true));
    // What no schema would let through ends no list.
    for spec in [json!([1, {}]), json!("x"), json!(true), json!(-1), json!(0.5), json!(null)] {
        object.data["spec"] = spec.clone();
        object.data["status"] = spec;
        let read: EggObject = serde_json::from_str(&serde_json::to_string(&object).unwrap()).unwrap();
        assert_eq!(egg(read).selection, None);
    }
}

#[test]
fn what_changes_nothing_is_known_to_change_nothing() {
    let mut selected =
        world(&[node_pod("a", "shop", "web")], &[egg_object("web", "Enforce", 1, Some((1, "True")))]);
    let mut rules = egg_object("web", "Enforce", 1, Some((1, "True")));
    rules.data["status"]["summary"] = json!("3 pods");
    assert!(!selected.apply(News::Egg(Event::Apply(read(&rules)))));
    assert!(!selected.apply(News::Pod(Event::Apply(node_pod("a", "shop", "web")))));
    assert!(selected.apply(News::Pod(Event::Apply(node_pod("a", "shop", "other")))));
    assert!(selected.apply(News::Egg(Event::Apply(read(&egg_object("web", "Audit", 2, Some((2, "True"))))))));
    assert!(!selected.apply(News::Egg(Event::Delete(read(&egg_object("nobody", "Enforce", 1, None))))));
    assert!(selected.apply(News::Pod(Event::Delete(node_pod("a", "shop", "other")))));
}

#[test]
fn who_ends_keeps_what_is_in_force_until_its_end() {
    let pods = [
        node_pod("pod-free", "shop", "free"),
        node_pod("pod-selected", "shop", "web"),
        NodePod { is_ending: true, ..node_pod("pod-ending", "shop", "free") },
        NodePod { finished: true, ..node_pod("pod-finished", "shop", "free") },
        node_pod("pod-of-ending", "other", "free"),
    ];
    let mut selected = world(&pods, &[egg_object("web", "Enforce", 1, Some((1, "True")))]);
    let ending = NamedNamespace { name: "other".into(), is_ending: true, ..NamedNamespace::default() };
    selected.apply(News::Namespace(Event::Apply(ending)));
    let keep = ["pod-selected", "pod-ending", "pod-finished", "pod-of-ending", "pod-whose-object-is-gone"];
    for uid in keep {
        assert!(selected.until_end(uid), "{uid}");
    }
    for uid in ["pod-free", NODE_UID, "0123456789abcdef0123456789abcdef"] {
        assert!(!selected.until_end(uid), "{uid}");
    }
    let ending: Vec<&str> = keep.into_iter().filter(|uid| selected.is_ending(uid)).collect();
    assert_eq!(ending, keep[1..]);
    assert!(
        selected.selects("pod-selected", "Egg shop/web")
            && !selected.selects("pod-selected", "Egg shop/other")
    );
    // Where pods are not watched, nothing is known of any.
    assert!(!Selected::default().until_end("pod-ending"));
}

#[test]
fn what_is_being_deleted_is_read() {
    let ending = json!({"name": "a", "namespace": "shop", "uid": "pod-a",
                        "deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30});
    let read = |metadata: &Value| pod(serde_json::from_value(json!({"metadata": metadata})).unwrap());
    assert!(read(&ending).is_ending);
    assert!(!read(&json!({"name": "a", "uid": "pod-a"})).is_ending);
    let read = |metadata: Value| {
        let object =
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata});
        namespace(serde_json::from_value(object).unwrap())
    };
    assert!(read(json!({"name": "shop", "deletionTimestamp": "2024-01-01T00:00:00Z"})).is_ending);
    assert!(!read(json!({"name": "shop"})).is_ending);
}

#[test]
fn a_pods_addresses_are_those_of_its_status() {
    let read = |status: Value| {
        let object = json!({"metadata": {"uid": "u"}, "spec": {}, "status": status});
        pod(serde_json::from_value(object).unwrap()).addresses
    };
    let both =
        json!({"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}, {"ip": "?"}, {}]});
    assert_eq!(read(both), ["10.0.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
    assert!(read(json!({})).is_empty());
    assert!(read(json!({"podIPs": null})).is_empty());
}
