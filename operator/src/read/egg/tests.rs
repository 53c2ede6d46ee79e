use serde_json::{Value, json};

use super::*;

fn object(kind: &str, namespace: Option<&str>, spec: Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "l7egg.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "a", "namespace": namespace, "uid": "u", "generation": 3, "resourceVersion": "17"},
        "spec": spec,
    }))
    .unwrap()
}

fn read_one(spec: Value) -> Egg {
    egg(&object("Egg", Some("shop"), spec)).unwrap()
}

fn rejected(spec: Value) -> Rejection {
    read_one(spec).spec.unwrap_err()
}

fn rule() -> Value {
    json!([{"to": [{"cidr": "10.0.0.0/8"}], "ports": [{"port": 80}]}])
}

#[test]
fn an_egg() {
    let egg = read_one(json!({"podSelector": {"matchLabels": {"app": "x"}}, "egress": rule()}));
    assert_eq!((egg.generation, egg.resource_version, egg.uid.as_str()), (3, 17, "u"));
    let accepted = egg.spec.unwrap();
    assert_eq!(accepted.policy.egress.len(), 1);
    assert!(accepted.selection.selects("shop", None, &[("app".into(), "x".into())].into()));
    assert!(!accepted.selection.selects("other", None, &[("app".into(), "x".into())].into()));
}

#[test]
fn malformed_objects_say_where() {
    let rejection = rejected(json!({"podSelector": {}, "egress": [{"to": [{"cidr": 7}]}]}));
    assert_eq!(rejection.reason, "Malformed");
    assert!(rejection.message.starts_with("spec.egress[0].to[0].cidr: "), "{}", rejection.message);
    assert!(rejection.selection.is_some(), "the selector can be read");

    let rejection = rejected(json!({"egress": rule()}));
    assert_eq!(rejection.reason, "Malformed");
    assert!(rejection.message.contains("podSelector: {}"));

    assert_eq!(rejected(json!("nonsense")).reason, "Malformed");
    assert_eq!(rejected(Value::Null).reason, "Malformed");
    assert_eq!(rejected(json!({"podSelector": "app=x", "egress": rule()})).reason, "Malformed");
}

#[test]
fn a_field_of_a_later_version_is_not_passed_over() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "x"}}, "egress": [{"to": [{"cidr": "10.0.0.0/8"}], "onlyIf": {}}]});
    let rejection = rejected(spec.clone());
    assert_eq!(rejection.reason, "Malformed");
    assert!(rejection.message.starts_with("spec.egress[0].onlyIf: "), "{}", rejection.message);
    assert!(rejection.selection.is_some());
    let cluster = cluster_egg(&object("ClusterEgg", None, spec)).unwrap();
    assert!(cluster.spec.unwrap_err().message.starts_with("spec.egress[0].onlyIf: "));
}

#[test]
fn an_egg_that_fits_into_no_assignment_is_not_accepted() {
    let network = |n: usize| json!({"cidr": format!("10.{}.{}.{}/32", n >> 16, n >> 8 & 255, n & 255)});
    let of = |count: usize| {
        let to: Vec<_> = (0..count).map(network).collect();
        let rules: Vec<_> = to.chunks(1000).map(|to| json!({"to": to})).collect();
        json!({"podSelector": {}, "egress": rules})
    };
    let judge = |spec: Value| judge_to_assign(&EggKey::egg("shop", "a"), &spec);
    let rejection = judge(of(60_000)).unwrap_err();
    assert_eq!(rejection.reason, "Invalid");
    assert!(rejection.message.starts_with("spec: "), "{}", rejection.message);
    assert!(rejection.selection.is_some());
    assert!(judge(of(30_000)).is_ok());
    assert!(read_one(of(60_000)).spec.is_ok(), "where nothing is assigned");
}

#[test]
fn invalid_policies_list_problems() {
    let bad = json!([{"to": [{"cidr": "10.0.0.0/99"}]}, {"to": [{"cidr": "nonsense"}]}]);
    let rejection = rejected(json!({"podSelector": {}, "egress": bad}));
    assert_eq!(rejection.reason, "Invalid");
    assert!(rejection.message.contains("spec.egress[0].to[0].cidr"), "{}", rejection.message);
    assert!(rejection.message.contains("spec.egress[1].to[0].cidr"), "{}", rejection.message);

    let many: Vec<_> = (0..20).map(|_| json!({"to": [{"cidr": "nonsense"}]})).collect();
    let message = rejected(json!({"podSelector": {}, "egress": many})).message;
    assert!(message.ends_with("; and 15 more"), "{message}");
}

#[test]
fn operators_of_selectors() {
    let with = |operator: &str, values: Value| {
        let expression = json!({"key": "tier", "operator": operator, "values": values});
        read_one(json!({"podSelector": {"matchExpressions": [expression]}, "egress": rule()})).spec
    };
    for (operator, values) in [
        ("In", json!(["a"])),
        ("NotIn", json!(["a", "b"])),
        ("Exists", Value::Null),
        ("DoesNotExist", json!([])),
    ] {
        assert!(with(operator, values).is_ok(), "{operator}");
    }
    for (operator, values) in
        [("In", json!([])), ("NotIn", Value::Null), ("Exists", json!(["a"])), ("Near", json!(["a"]))]
    {
        let rejection = with(operator, values).unwrap_err();
        assert_eq!(rejection.reason, "InvalidSelector", "{operator}");
        assert!(rejection.message.starts_with("spec.podSelector.matchExpressions[0]: "));
    }
}

#[test]
fn cluster_eggs() {
    let read_cluster = |spec| cluster_egg(&object("ClusterEgg", None, spec)).unwrap().spec;
    let accepted = read_cluster(json!({"podSelector": {}, "egress": rule()})).unwrap();
    assert!(accepted.selection.selects("any", None, &Default::default()));

    let nodes = read_cluster(json!({"nodeSelector": {}, "egress": rule()})).unwrap();
    assert!(nodes.selection.selects_node(&Default::default()));
    assert!(!nodes.selection.selects("any", None, &Default::default()));
    let shaped = json!({"nodeSelector": {}, "shaping": {"egress": {"rate": "1M"}}});
    let shaped = read_cluster(shaped).unwrap_err();
    assert!(shaped.message.contains("spec.shaping: a node's own traffic"), "{}", shaped.message);
    assert!(shaped.selection.is_some_and(|selection| selection.selects_node(&Default::default())));
    let both = read_cluster(json!({"nodeSelector": {}, "podSelector": {}, "egress": rule()})).unwrap_err();
    assert_eq!(both.reason, "Invalid");
    let neither = read_cluster(json!({"egress": rule()})).unwrap_err();
    assert_eq!(neither.reason, "Invalid");
    let operator = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    let namespaces = read_cluster(json!({"podSelector": {}, "namespaceSelector": operator})).unwrap_err();
    assert_eq!(namespaces.reason, "InvalidSelector");
}

#[test]
fn one_that_is_being_deleted_asks_for_nothing() {
    let mut object = object("Egg", Some("shop"), json!({"podSelector": {}}));
    object.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    assert_eq!(egg(&object), None);
}

#[test]
fn a_status_that_cannot_be_read_does_no_harm() {
    let mut object = object("Egg", Some("shop"), json!({"podSelector": {}}));
    object.data["status"] = json!({"conditions": "none"});
    assert_eq!(egg(&object).unwrap().status, EggStatus::default());
}
