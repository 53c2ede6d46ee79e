use serde_json::json;

use super::*;

fn object(spec: Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "l7egg.dev/v1alpha1", "kind": "EggAssignment",
        "metadata": {"namespace": "shop", "name": "checkout-x", "uid": "u1", "generation": 3},
        "spec": spec,
    }))
    .unwrap()
}

fn spec() -> Value {
    json!({
        "node": "node1",
        "egg": {"kind": "Egg", "namespace": "shop", "name": "checkout", "uid": "e1", "generation": 7},
        "policy": {"mode": "Enforce", "egress": []},
        "pods": [{"namespace": "shop", "name": "a", "uid": "p1"}],
    })
}

#[test]
fn reads_what_the_operator_writes() {
    let read = AssignmentObject::read(&object(spec()));
    assert_eq!(read.key.to_string(), "shop/checkout-x");
    assert_eq!(read.generation, Some(3));
    let assignment = read.content.unwrap();
    assert_eq!(egg_name(&assignment.egg), "Egg shop/checkout");
    assert_eq!(assignment.pods.len(), 1);
}

#[test]
fn says_where_it_cannot_read_and_keeps_the_pods() {
    let mut bad = spec();
    bad["policy"]["egress"] = json!([{"to": [{"cidr": 17}]}]);
    let unreadable = AssignmentObject::read(&object(bad)).content.unwrap_err();
    assert!(unreadable.message.contains("shop/checkout-x"), "{}", unreadable.message);
    assert!(unreadable.message.contains("spec.policy.egress[0].to[0].cidr"), "{}", unreadable.message);
    assert_eq!(unreadable.pods.unwrap()[0].uid, "p1");
}

#[test]
fn what_a_newer_operator_asks_for_is_not_left_out_without_a_word() {
    let mut newer = spec();
    newer["policy"]["egress"] = json!([{"to": [{"cidr": "10.0.0.0/8", "asn": 64496}]}]);
    let unreadable = AssignmentObject::read(&object(newer)).content.unwrap_err();
    assert!(unreadable.message.contains("spec.policy.egress[0].to[0].asn"), "{}", unreadable.message);
    assert!(unreadable.message.contains("upgrade the node agents"), "{}", unreadable.message);
    assert_eq!(unreadable.pods.unwrap()[0].uid, "p1");
    // What does not restrict may be left out.
    let mut beside = spec();
    beside["pods"][0]["zone"] = json!("a");
    assert!(AssignmentObject::read(&object(beside)).content.is_ok());
}

#[test]
fn of_a_pod_that_cannot_be_read_the_uid_is_enough() {
    let mut bad = spec();
    bad["pods"][0]["hostNetwork"] = json!("what");
    let unreadable = AssignmentObject::read(&object(bad)).content.unwrap_err();
    assert!(unreadable.message.contains("spec.pods[0].hostNetwork"), "{}", unreadable.message);
    assert_eq!(unreadable.pods.unwrap()[0].uid, "p1");
}

#[test]
fn without_readable_pods_there_are_none_to_name() {
    for pods in [json!("x"), json!([{"name": "a"}])] {
        let mut bad = spec();
        bad["pods"] = pods;
        assert_eq!(AssignmentObject::read(&object(bad)).content.unwrap_err().pods, None);
    }
    let nothing = AssignmentObject::read(&object(json!(7))).content.unwrap_err();
    assert!(nothing.message.contains("cannot be read: spec: invalid type"), "{}", nothing.message);
}

#[test]
fn a_node_is_a_subject_of_its_own() {
    let mut host = spec();
    host["pods"] = json!([]);
    host["host"] = json!({"podCIDRs": ["10.88.1.0/24"]});
    host["egg"] = json!({"kind": "ClusterEgg", "name": "all", "uid": "e2", "generation": 1});
    let mut object = object(host.clone());
    object.metadata.namespace = Some(SYSTEM_NAMESPACE.into());
    let assignment = AssignmentObject::read(&object).content.unwrap();
    assert_eq!(assignment.host.unwrap().pod_cidrs, ["10.88.1.0/24"]);
    assert_eq!((assignment.pods[0].uid.as_str(), assignment.pods[0].name.as_str()), (NODE_UID, "node1"));
    object.data["spec"]["policy"]["egress"] = json!("what");
    let unreadable = AssignmentObject::read(&object).content.unwrap_err();
    assert_eq!(unreadable.pods.unwrap()[0].uid, NODE_UID);
}

#[test]
fn who_owns_a_namespace_owns_no_other() {
    let of = |namespace: &str, change: &dyn Fn(&mut Value)| {
        let mut spec = spec();
        change(&mut spec);
        let mut object = object(spec);
        object.metadata.namespace = Some(namespace.into());
        AssignmentObject::read(&object)
    };
    let cluster = |spec: &mut Value| {
        spec["egg"] = json!({"kind": "ClusterEgg", "name": "all", "uid": "e2", "generation": 1})
    };
    let host = |spec: &mut Value| spec["host"] = json!({"podCIDRs": []});
    let node = |spec: &mut Value| {
        cluster(spec);
        host(spec);
    };
    for (namespace, change) in [
        ("mine", &(|_: &mut Value| ()) as &dyn Fn(&mut Value)),
        ("shop", &|spec| spec["pods"][0]["namespace"] = json!("other")),
        ("shop", &|spec| spec["egg"]["namespace"] = json!("other")),
        ("shop", &host),
        ("shop", &|spec| spec["pods"][0]["uid"] = json!("node")),
        ("shop", &|spec| spec["pods"][0]["uid"] = json!("0123456789abcdef0123456789abcdef")),
        ("shop", &cluster),
        ("shop", &node),
    ] {
        let object = of(namespace, change);
        let message = &object.content.as_ref().unwrap_err().message;
        assert!(message.contains("is not one of the operator's"), "{message}");
        assert!(object.pods().is_empty());
    }
    for change in [&cluster as &dyn Fn(&mut Value), &node] {
        assert!(of(SYSTEM_NAMESPACE, change).content.is_ok());
    }
    // Nor by what cannot be read.
    let unread = |namespace: &str, uid: &str, host: bool| {
        let object = of("shop", &|spec| {
            spec["policy"]["egress"] = json!("what");
            spec["pods"] = json!([{"namespace": namespace, "name": "a", "uid": uid}]);
            if host {
                spec["host"] = json!({});
            }
        });
        object.pods().len()
    };
    assert_eq!((unread("shop", "p1", false), unread("other", "p1", false)), (1, 0));
    assert_eq!((unread("shop", "node", false), unread("other", "p1", true)), (0, 0));
}

#[test]
fn a_pod_listed_twice_is_one_pod() {
    let mut twice = spec();
    twice["pods"] = json!([
        {"namespace": "shop", "name": "a", "uid": "p1"}, {"namespace": "shop", "name": "a", "uid": "p1"},
    ]);
    assert_eq!(AssignmentObject::read(&object(twice)).pods().len(), 1);
}
