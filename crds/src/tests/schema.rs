//! The schemas are what an API server takes, and can hold every value of the types.

use crate::{Mode, PolicySpec, manifests};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

/// An API server estimates what a CEL rule costs at most: its own cost, times how often the lists around it
/// can hold it. `StaticEstimatedCostLimit` in kubernetes' apiextensions-apiserver/pkg/apiserver/schema/cel.
const COST_LIMIT: f64 = 10_000_000.0;

fn crds() -> Vec<CustomResourceDefinition> {
    manifests().iter().map(|(_, yaml)| serde_yaml::from_str(yaml).unwrap()).collect()
}

fn schema(kind: &str) -> Value {
    let crd = crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap())
        .unwrap()
}

#[test]
fn names_and_status_subresource() {
    for ((file, _), crd) in manifests().iter().zip(crds()) {
        assert_eq!(*file, format!("{}.yaml", crd.metadata.name.unwrap()));
        assert!(crd.spec.names.short_names.is_some_and(|names| !names.is_empty()), "{file}");
        assert!(crd.spec.versions[0].subresources.as_ref().unwrap().status.is_some(), "{file}");
        assert!(crd.spec.versions[0].additional_printer_columns.is_some(), "{file}");
    }
}

/// Structural schemas (Kubernetes, "Specifying a structural schema"): a type everywhere, no references, and
/// beside a flattened struct no `allOf`.
#[test]
fn structural() {
    for crd in ["Egg", "ClusterEgg", "EggAssignment"] {
        walk(&schema(crd), crd, &mut |node, path| {
            let typed = node.get("type").is_some() || node.get("x-kubernetes-int-or-string").is_some();
            assert!(typed, "{path} has no type");
            for word in ["$ref", "allOf", "anyOf", "oneOf", "not", "definitions"] {
                assert!(node.get(word).is_none(), "{path} has {word}");
            }
            if node.get("x-kubernetes-list-type").is_some_and(|kind| kind == "map") {
                for key in node["x-kubernetes-list-map-keys"].as_array().unwrap() {
                    let required = node["items"]["required"].as_array().unwrap();
                    assert!(required.contains(key), "{path}: key {key} is not required");
                }
            }
        });
    }
}

#[test]
fn policy_lies_flat_in_an_egg() {
    let spec = |kind: &str| schema(kind)["properties"]["spec"].clone();
    let (egg, cluster) = (spec("Egg"), spec("ClusterEgg"));
    let assigned = &spec("EggAssignment")["properties"]["policy"];
    for (field, schema) in assigned["properties"].as_object().unwrap() {
        assert_eq!(&egg["properties"][field], schema, "{field}");
        assert_eq!(&cluster["properties"][field], schema, "{field}");
    }
    assert_eq!(egg["required"], json!(["podSelector"]));
    assert!(cluster.get("required").is_none());
    assert_eq!(
        egg["properties"].as_object().unwrap().len(),
        1 + assigned["properties"].as_object().unwrap().len()
    );
}

#[test]
fn defaults_of_the_types_are_those_of_the_schema() {
    let policy: PolicySpec =
        serde_json::from_value(json!({"egress": [{"to": [{}], "ports": [{}]}]})).unwrap();
    assert_eq!(policy.mode, Mode::Enforce);
    let schema = &schema("Egg")["properties"]["spec"]["properties"];
    let rule = &schema["egress"]["items"]["properties"];
    let written = serde_json::to_value(&policy).unwrap();
    assert_eq!(written["mode"], schema["mode"]["default"]);
    // An API server would write them into the items of the list, and tools that compare objects with files take that for a change.
    let protocol = &rule["ports"]["items"]["properties"]["protocol"];
    for (written, schema, default) in [
        (&written["egress"][0]["action"], &rule["action"], "Allow"),
        (&written["egress"][0]["ports"][0]["protocol"], protocol, "TCP"),
    ] {
        assert_eq!((written, schema.get("default")), (&json!(default), None));
        assert!(
            schema["description"].as_str().unwrap().contains(&format!("{default} (default)")),
            "{schema}"
        );
    }
}

/// A user who leaves a value empty (`cidr:`) has written null, and is told so.
#[test]
fn no_null_in_a_policy() {
    let schema = schema("Egg");
    walk(&schema["properties"]["spec"], "spec", &mut |node, path| {
        // Quantities that may be left out: kube marks these so, whatever their type says.
        let quantity = node.get("x-kubernetes-int-or-string").is_some();
        assert!(quantity || node.get("nullable").is_none(), "{path} takes null");
    });
}

#[test]
fn cel_rules_fit_the_cost_budget() {
    for kind in ["Egg", "ClusterEgg", "EggAssignment"] {
        let mut rules = 0;
        let mut total = 0.0;
        costs(&schema(kind), 1.0, &mut |rule, cost| {
            println!("{kind}: at most {cost:.0}: {rule}");
            assert!(cost < COST_LIMIT, "{kind}: {rule}: {cost}");
            rules += 1;
            total += cost;
        });
        assert!(rules >= 7, "{kind} has {rules} rules");
        assert!(total < 10.0 * COST_LIMIT, "{kind}: {total}");
    }
}

/// Every rule with an upper estimate of its cost: two for each field that it names, and for a regular
/// expression a tenth of the text's longest UTF-8 form times a quarter of the expression's length (cel-go's
/// estimate; Kubernetes 1.36 itself comes to 130 for the `matches` here, as this does).
fn costs(node: &Value, times: f64, each: &mut impl FnMut(&str, f64)) {
    for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let rule = rule["rule"].as_str().unwrap();
        let mut cost = 2.0 * rule.matches("self").count() as f64 + 2.0;
        if let Some((_, pattern)) = rule.split_once("self.cidr.matches('") {
            let longest = 4.0 * node["properties"]["cidr"]["maxLength"].as_f64().unwrap();
            let pattern = pattern.trim_end_matches("')").len() as f64;
            cost += (0.1 * (longest + 1.0)).ceil() * (0.25 * pattern).ceil();
        }
        each(rule, times * cost);
    }
    for field in node["properties"].as_object().into_iter().flatten() {
        costs(field.1, times, each);
    }
    if let Some(items) = node.get("items") {
        // A list without bounds is as long as a request can be; no rule may lie in one.
        costs(items, times * node["maxItems"].as_f64().unwrap_or(f64::INFINITY), each);
    }
}

fn walk(node: &Value, path: &str, each: &mut impl FnMut(&Value, &str)) {
    each(node, path);
    for (field, below) in node["properties"].as_object().into_iter().flatten() {
        walk(below, &format!("{path}.{field}"), each);
    }
    for word in ["items", "additionalProperties"] {
        if let Some(below) = node.get(word) {
            walk(below, &format!("{path}.{word}"), each);
        }
    }
}
