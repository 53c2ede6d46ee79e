//! The three levels on which an object is checked.

use crate::{validate, validate_cluster};
use kube::CustomResourceExt;
use kube::core::cel::Validator;
use l7egg_crds::{ClusterEgg, ClusterEggSpec, Egg, PolicySpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The schemas of the CRDs.
pub struct Levels {
    egg: Value,
    cluster_egg: Value,
}

/// Reads YAML as kubectl does.
pub fn object(yaml: &str) -> Value {
    serde_yaml::from_str(yaml).unwrap()
}

impl Levels {
    /// Takes the schemas from the API types.
    pub fn new() -> Self {
        Levels { egg: schema::<Egg>(), cluster_egg: schema::<ClusterEgg>() }
    }

    /// What each level says, as `level: path: message`.
    pub fn errors(&self, object: &Value) -> Vec<String> {
        let schema = self.schema_of(object);
        let mut errors: Vec<String> = jsonschema::validator_for(schema)
            .unwrap()
            .iter_errors(object)
            .map(|error| {
                format!(
                    "schema: {}: {}",
                    field_path(&error.instance_path().to_string()),
                    short(&error.to_string())
                )
            })
            .collect();
        // An API server runs the rules only on what the schema lets pass.
        if errors.is_empty()
            && let Err(broken) = Validator::new().validate_with_defaults(schema, object, None)
        {
            errors.extend(broken.iter().map(|error| format!("cel: {error}")));
        }
        errors.extend(operator(object).into_iter().map(|error| format!("operator: {error}")));
        errors
    }

    /// Fields that the types do not have: an API server drops them.
    pub fn unknown_fields(&self, object: &Value) -> Vec<String> {
        let known = match object["kind"].as_str() {
            Some("Egg") => round_trip::<Egg>(object),
            _ => round_trip::<ClusterEgg>(object),
        };
        let mut lost = Vec::new();
        compare(object, &known, String::new(), &mut lost);
        lost
    }

    fn schema_of(&self, object: &Value) -> &Value {
        match object["kind"].as_str() {
            Some("Egg") => &self.egg,
            Some("ClusterEgg") => &self.cluster_egg,
            other => panic!("kind {other:?}"),
        }
    }
}

/// What the operator makes of the object; the first wrong type is its one error.
fn operator(object: &Value) -> Vec<String> {
    let problems = if object["kind"] == "Egg" {
        parse::<PolicySpec>(&object["spec"]).map(|policy| validate(&policy))
    } else {
        parse::<ClusterEggSpec>(&object["spec"]).map(|spec| validate_cluster(&spec))
    };
    match problems {
        Ok(problems) => problems.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error],
    }
}

fn parse<T: DeserializeOwned>(spec: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(spec)
        .map_err(|error| format!("spec.{}: {}", error.path(), error.inner()))
}

fn schema<K: CustomResourceExt>() -> Value {
    let crd = K::crd();
    let schema = crd.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    serde_json::to_value(schema.unwrap()).unwrap()
}

fn round_trip<K: Serialize + DeserializeOwned>(object: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<K>(object.clone()).unwrap()).unwrap()
}

/// Names what `given` has and `known` has not. An empty list may be left out.
fn compare(given: &Value, known: &Value, path: String, lost: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), _) => {
            for (key, value) in given {
                compare(value, &known[key], format!("{path}.{key}"), lost);
            }
        }
        (Value::Array(given), _) => {
            for (index, value) in given.iter().enumerate() {
                compare(value, &known[index], format!("{path}[{index}]"), lost);
            }
        }
        (given, known) if given != known => lost.push(format!("{path}: {given} became {known}")),
        _ => {}
    }
}

/// `/spec/egress/0/to` as `spec.egress[0].to`.
fn field_path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        match part.parse::<usize>() {
            Ok(index) => path += &format!("[{index}]"),
            Err(_) if path.is_empty() => path += part,
            Err(_) => path += &format!(".{part}"),
        }
    }
    path
}

/// Ten thousand names need not be printed to say that they are too many.
fn short(message: &str) -> String {
    match message.char_indices().nth(160) {
        None => message.to_owned(),
        Some((at, _)) => format!("{} ... {}", &message[..at], &message[message.len() - 40..]),
    }
}
