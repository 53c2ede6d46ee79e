//! Fields that objects do not have. An API server, and kubectl before it, tells of a misspelled one; in a file it would be left out
//! without a word, and so would what it was to deny.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use l7egg_crds::{EggKind, UnknownField, unknown_fields};
use serde_json::{Map, Value};

/// A name that differs from another in more than this part of its letters is not meant for it.
const MISSPELLED: f64 = 0.5;

/// A field that the schema does not have.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown {
    path: String,
    /// The nearest field that there is, or all of them.
    known: Vec<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known.as_slice() {
            [known] => write!(f, "{}: there is no such field: is {known} meant?", self.path),
            known => write!(f, "{}: there is no such field, only {}", self.path, known.join(", ")),
        }
    }
}

/// Those of the object itself and of its metadata, which say what it is.
#[must_use]
pub fn unknown_in_head(object: &Value) -> Vec<Unknown> {
    let anything = || Value::from(true);
    let top = ["apiVersion", "kind", "spec", "status"].map(|field| (field.to_owned(), anything()));
    let metadata = schemars::schema_for!(ObjectMeta).to_value();
    let top: Map<String, Value> = top.into_iter().chain([("metadata".to_owned(), metadata)]).collect();
    told(unknown_fields(&serde_json::json!({"properties": top}), object, ""))
}

/// Those of its spec.
#[must_use]
pub fn unknown_in_spec(kind: EggKind, object: &Value) -> Vec<Unknown> {
    told(l7egg_crds::unknown_in_spec(kind, &object["spec"]))
}

fn told(unknown: Vec<UnknownField<'_>>) -> Vec<Unknown> {
    unknown
        .into_iter()
        .map(|field| Unknown { known: meant(field.name, field.known), path: field.path })
        .collect()
}

/// The field that is most like it, or all where none is.
fn meant(name: &str, known: &Map<String, Value>) -> Vec<String> {
    let likeness =
        |known: &str| strsim::normalized_damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase());
    let nearest = known.keys().map(|known| (likeness(known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, known)) if likeness >= MISSPELLED => vec![known.clone()],
        _ => known.keys().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(kind: EggKind, spec: Value) -> Vec<String> {
        unknown_in_spec(kind, &json!({"spec": spec})).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_path_and_what_may_be_meant() {
        let egg = json!({
            "podSelector": {"matchLables": {"app": "web"}, "matchExpressions": [{"key": "a", "operator": "In", "vals": []}]},
            "mod": "Audit",
            "egress": [{"to": [], "prots": []}, {"acton": "Deny", "to": [{"domainName": [], "address": "192.0.2.1"}]}],
            "shaping": {"egress": {"rate": "1M", "scop": "Egg"}},
            "refuseUnmatched": true,
        });
        let mut told = spec(EggKind::Egg, egg);
        told.sort();
        let no = "there is no such field";
        assert_eq!(
            told,
            [
                format!("spec.egress[0].prots: {no}: is ports meant?"),
                format!("spec.egress[1].acton: {no}: is action meant?"),
                format!(
                    "spec.egress[1].to[0].address: {no}, only cidr, domainNames, domainRegex, domainSuffixes, except"
                ),
                format!("spec.egress[1].to[0].domainName: {no}: is domainNames meant?"),
                format!("spec.mod: {no}: is mode meant?"),
                format!("spec.podSelector.matchExpressions[0].vals: {no}: is values meant?"),
                format!("spec.podSelector.matchLables: {no}: is matchLabels meant?"),
                format!(
                    "spec.refuseUnmatched: {no}, only containers, dns, egress, mode, podSelector, shaping"
                ),
                format!("spec.shaping.egress.scop: {no}: is scope meant?"),
            ]
        );
    }

    #[test]
    fn what_there_is_is_not_told() {
        let egg = json!({
            "podSelector": {"matchLabels": {"any/label": "x"}},
            "dns": {"minTTL": "1s", "maxTTL": "1s", "ttlGrace": "1s", "servers": []},
            "shaping": {"egress": {"rate": 5, "burst": "64Ki"}},
        });
        assert!(spec(EggKind::Egg, egg).is_empty());
        assert!(spec(EggKind::ClusterEgg, json!({"nodeSelector": {}, "namespaceSelector": {}})).is_empty());
        assert_eq!(spec(EggKind::Egg, json!({"podSelector": {}, "nodeSelector": {}})).len(), 1);
        let head = json!({
            "apiVersion": "v", "kind": "k", "spec": {"a": 1}, "status": {"b": 1},
            "metadata": {"name": "n", "namespace": "n", "labels": {"a": "b"}, "annotations": {"a": "b"}, "generation": 1,
                "managedFields": [{"manager": "m"}], "ownerReferences": [{"name": "n"}]},
        });
        assert_eq!(unknown_in_head(&head), []);
        let head = json!({"metadata": {"namespce": "n"}, "spc": {}});
        let told: Vec<String> = unknown_in_head(&head).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "metadata.namespce: there is no such field: is namespace meant?",
                "spc: there is no such field: is spec meant?"
            ]
        );
    }
}
