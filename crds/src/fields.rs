//! Fields that an object has and its schema has not. Serde leaves them out without a word, and with them what they were to deny.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde_json::{Map, Value};

use crate::{ClusterEgg, Egg, EggAssignment, EggKind};

/// A field that a schema does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct UnknownField<'a> {
    /// Where it is: `spec.egress[0].prots`.
    pub path: String,
    /// Its name there.
    pub name: &'a str,
    /// The schemas of those that there are in its place.
    pub known: &'a Map<String, Value>,
}

/// The schema of a kind of object of ours, as its CustomResourceDefinition has it.
fn schema_of<K: CustomResourceExt>() -> Value {
    let version = K::crd().spec.versions.into_iter().next();
    let schema = version.and_then(|version| version.schema).and_then(|schema| schema.open_api_v3_schema);
    serde_json::to_value(schema).unwrap_or_default()
}

/// The fields of a value, which is at `path` of its object, that its schema does not have.
#[must_use]
pub fn unknown_fields<'a>(schema: &'a Value, given: &'a Value, path: &str) -> Vec<UnknownField<'a>> {
    let mut unknown = Vec::new();
    compare(schema, given, path, &mut unknown);
    unknown
}

/// Those of the spec of an [`Egg`] or [`ClusterEgg`].
#[must_use]
pub fn unknown_in_spec(kind: EggKind, spec: &Value) -> Vec<UnknownField<'_>> {
    static SCHEMAS: LazyLock<BTreeMap<EggKind, Value>> = LazyLock::new(|| {
        [(EggKind::Egg, schema_of::<Egg>()), (EggKind::ClusterEgg, schema_of::<ClusterEgg>())].into()
    });
    unknown_fields(&SCHEMAS[&kind]["properties"]["spec"], spec, "spec")
}

/// Those of the spec of an [`EggAssignment`].
#[must_use]
pub fn unknown_in_assignment(spec: &Value) -> Vec<UnknownField<'_>> {
    static SCHEMA: LazyLock<Value> = LazyLock::new(schema_of::<EggAssignment>);
    unknown_fields(&SCHEMA["properties"]["spec"], spec, "spec")
}

fn compare<'a>(schema: &'a Value, given: &'a Value, path: &str, unknown: &mut Vec<UnknownField<'a>>) {
    match (given, schema["properties"].as_object()) {
        (Value::Object(fields), Some(known)) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(schema) => compare(schema, value, &path, unknown),
                    None => unknown.push(UnknownField { path, name, known }),
                }
            }
        }
        (Value::Array(items), _) => {
            // Thousands of names have no fields.
            let items = items.iter().enumerate().filter(|(_, item)| item.is_object() || item.is_array());
            for (index, item) in items {
                compare(&schema["items"], item, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Action, Destination, Dns, EgressRule, PolicySpec, Port, Protocol, Shaping, ShapingLimit};

    fn paths(policy: Value) -> Vec<String> {
        let spec = json!({ "policy": policy });
        unknown_in_assignment(&spec).into_iter().map(|field| field.path).collect()
    }

    #[test]
    fn at_every_depth_of_a_policy() {
        let policy = json!({
            "egress": [{"to": [{"cidr": "10.0.0.0/8", "asn": 1}]}, {"to": [], "sni": []}],
            "dns": {"dnssec": true}, "shaping": {"egress": {"rate": "1M", "packets": 3}}, "ingress": [],
        });
        assert_eq!(
            paths(policy),
            [
                "spec.policy.dns.dnssec",
                "spec.policy.egress[0].to[0].asn",
                "spec.policy.egress[1].sni",
                "spec.policy.ingress",
                "spec.policy.shaping.egress.packets",
            ]
        );
    }

    #[test]
    fn what_the_types_write_is_known() {
        let policy = PolicySpec {
            egress: vec![EgressRule {
                action: Action::Deny,
                to: vec![Destination {
                    domain_names: vec!["a.example".into()],
                    domain_suffixes: vec!["b".into()],
                    domain_regex: vec!["c".into()],
                    cidr: Some("10.0.0.0/8".into()),
                    except: vec!["10.1.0.0/16".into()],
                }],
                ports: vec![Port { protocol: Protocol::Udp, port: Some(1), end_port: Some(2) }],
            }],
            containers: vec!["app".into()],
            dns: Some(Dns { servers: vec!["192.0.2.1".into()], ..Dns::default() }),
            shaping: Some(Shaping { egress: Some(ShapingLimit::default()) }),
            ..PolicySpec::default()
        };
        assert!(paths(serde_json::to_value(policy).unwrap()).is_empty());
    }
}
