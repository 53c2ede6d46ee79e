//! Every CEL rule lets pass what it should, and says its message where it should not.

use crate::{ClusterEggSpec, Destination, Port};
use serde_json::{Value, json};

type Check = fn(&Value, Option<&Value>) -> Result<(), kube::core::cel::ValidationErrors>;

fn passes(check: Check, value: Value) {
    if let Err(errors) = check(&value, None) {
        panic!("{value}: {errors:?}");
    }
}

fn says(check: Check, value: Value, message: &str) {
    let errors = check(&value, None).expect_err(&value.to_string());
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(messages, [message], "{value}");
}

#[test]
fn destination_is_names_or_a_cidr() {
    let check = Destination::validate_cel;
    passes(check, json!({"cidr": "10.0.0.0/8"}));
    passes(check, json!({"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}));
    passes(check, json!({"domainNames": ["a.example"], "domainRegex": ["a"], "domainSuffixes": ["b"]}));
    let empty = "a destination needs names or a cidr: write domainNames or cidr";
    says(check, json!({}), empty);
    let mixed = "a destination is either a cidr (with except) or names: write them as two entries of to";
    for names in ["domainNames", "domainRegex", "domainSuffixes"] {
        passes(check, json!({names: ["a.example"]}));
        says(check, json!({"cidr": "10.0.0.0/8", names: ["a.example"]}), mixed);
    }
    let alone = "except belongs to a cidr: write cidr beside it";
    says(check, json!({"except": ["10.9.0.0/16"]}), alone);
    says(check, json!({"domainNames": ["a.example"], "except": ["10.9.0.0/16"]}), alone);
}

#[test]
fn cidr_has_address_and_length() {
    let check = Destination::validate_cel;
    for good in ["0.0.0.0/0", "2001:db8::/32", "2001:DB8::1/128", "::/0", "::ffff:10.0.0.0/104"] {
        passes(check, json!({"cidr": good}));
    }
    let message =
        "a cidr is address/length, such as 10.0.0.0/8 or 2001:db8::/32; /32 or /128 for one address";
    for bad in
        ["", "10.0.0.1", "2001:db8::1", "example.com", "10.0.0.0/", "10.0.0.0/255.0.0.0", "x 10.0.0.0/8"]
    {
        says(check, json!({"cidr": bad}), message);
    }
}

#[test]
fn port_ranges() {
    let check = Port::validate_cel;
    passes(check, json!({"protocol": "TCP"}));
    passes(check, json!({"port": 443}));
    passes(check, json!({"protocol": "UDP", "port": 1, "endPort": 65535}));
    passes(check, json!({"port": 443, "endPort": 443}));
    says(check, json!({"endPort": 443}), "endPort is the end of a range: write port, its start, too");
    says(check, json!({"port": 443, "endPort": 442}), "the range is upside down: endPort is below port");
}

#[test]
fn icmp_has_no_ports() {
    let check = Port::validate_cel;
    passes(check, json!({"protocol": "ICMP"}));
    says(check, json!({"protocol": "ICMP", "port": 8}), "ICMP has no ports: write {protocol: ICMP} alone");
}

#[test]
fn cluster_egg_selects_pods_or_nodes() {
    let check = ClusterEggSpec::validate_cel;
    passes(check, json!({"podSelector": {}}));
    passes(check, json!({"namespaceSelector": {}, "podSelector": {}}));
    passes(check, json!({"nodeSelector": {}}));
    let missing =
        "write podSelector: {} to select every pod of the namespaces, or matchLabels in it to select some";
    says(check, json!({}), missing);
    says(check, json!({"namespaceSelector": {}}), missing);
    let both = "write either nodeSelector (a host firewall) or podSelector and namespaceSelector, not both";
    says(check, json!({"nodeSelector": {}, "podSelector": {}}), both);
    says(check, json!({"nodeSelector": {}, "namespaceSelector": {}}), both);
    let for_pods = "containers and shaping are for pods: leave them out where there is a nodeSelector";
    says(check, json!({"nodeSelector": {}, "containers": ["a"]}), for_pods);
    says(check, json!({"nodeSelector": {}, "shaping": {"egress": {"rate": "1M"}}}), for_pods);
}
