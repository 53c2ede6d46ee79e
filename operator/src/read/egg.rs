//! Eggs and ClusterEggs: read and judged here, so that the index holds only what can be enforced.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::DynamicObject;
use kube::core::Selector;
use l7egg_crds::{
    ClusterEggSpec, EggKind, EggStatus, PolicySpec, UnknownField, selector_at, unknown_in_spec,
};
use l7egg_policy::{Problem, validate, validate_cluster};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{judged_safely, resource_version};
use crate::index::{Accepted, Egg, EggKey, Namespaces, Rejection, Selection};
use crate::judging::Judgement;

/// Largest spec, in bytes of JSON. An EggAssignment holds it and what there is to say of the pods of a node, and the API server stores no
/// object of more than 1.5 MiB (etcd's `--max-request-bytes`).
const MAX_SPEC: usize = 1 << 20;
/// Most problems that a condition's message lists.
const MAX_PROBLEMS: usize = 5;

/// An Egg for the index; nothing if it has no name, or is being deleted.
pub fn egg(object: &DynamicObject) -> Option<Egg> {
    let key = egg_key(object)?;
    let spec = judge(&key, &object.data["spec"]);
    as_judged(object, key, spec)
}

/// A ClusterEgg for the index; nothing if it has no name, or is being deleted.
pub fn cluster_egg(object: &DynamicObject) -> Option<Egg> {
    let key = cluster_egg_key(object)?;
    let spec = judge(&key, &object.data["spec"]);
    as_judged(object, key, spec)
}

/// What is said of the spec of this Egg where EggAssignments are written by it. It can take seconds.
pub fn judge_to_assign(key: &EggKey, spec: &Value) -> Judgement {
    judge(key, spec).and_then(|accepted| {
        let bytes = spec.to_string().len();
        if bytes <= MAX_SPEC {
            return Ok(accepted);
        }
        let message = format!(
            "spec: its {bytes} bytes of JSON are more than the {MAX_SPEC} that fit into an EggAssignment beside the pods of a node: divide it into several Eggs"
        );
        Err(Rejection { reason: "Invalid", message, selection: Some(accepted.selection) })
    })
}

/// What is said of the spec of this Egg. It can take seconds.
pub fn judge(key: &EggKey, spec: &Value) -> Judgement {
    judged_safely(key, || {
        let judgement = match key.kind {
            EggKind::Egg => read_egg(key.namespace.as_deref().unwrap_or_default(), spec),
            EggKind::ClusterEgg => read_cluster_egg(spec),
        };
        match of_later_version(key.kind, spec) {
            None => judgement,
            Some(rejection) => {
                let selection = match judgement {
                    Ok(accepted) => Some(accepted.selection),
                    Err(rejection) => rejection.selection,
                };
                Err(Rejection { selection, ..rejection })
            }
        }
    })
}

/// What to say of a spec whose CustomResourceDefinition is of a later version: what that has is not pruned, and serde leaves it out
/// without a word.
fn of_later_version(kind: EggKind, spec: &Value) -> Option<Rejection> {
    let unknown = unknown_in_spec(kind, spec);
    let UnknownField { path, .. } = unknown.first()?;
    Some(malformed(&format!(
        "{path}: this operator ({}) knows no such field, and what it says would not be enforced: upgrade the operator to the version of its CustomResourceDefinitions, or write the Egg without it",
        env!("CARGO_PKG_VERSION")
    )))
}

/// Which Egg an object is.
pub fn egg_key(object: &DynamicObject) -> Option<EggKey> {
    Some(EggKey::egg(object.metadata.namespace.clone()?, object.metadata.name.clone()?))
}

/// Which ClusterEgg an object is.
pub fn cluster_egg_key(object: &DynamicObject) -> Option<EggKey> {
    Some(EggKey::cluster(object.metadata.name.clone()?))
}

/// An Egg for the index, of which is known what is said of its spec; nothing if it is being deleted.
pub fn as_judged(object: &DynamicObject, key: EggKey, spec: Judgement) -> Option<Egg> {
    // It may wait for finalizers of others; what it asked for ends with the order to delete it.
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(Egg {
        key,
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
        resource_version: resource_version(&object.metadata),
        spec,
        // A status that cannot be read is one to be written anew.
        status: EggStatus::deserialize(&object.data["status"]).unwrap_or_default(),
    })
}

fn read_egg(namespace: &str, spec: &Value) -> Result<Accepted, Rejection> {
    refuse_no_object(spec)?;
    let namespaces = Namespaces::One(namespace.to_owned());
    let pods = match spec.get("podSelector") {
        Some(selector) => parse::<LabelSelector>(selector, "spec.podSelector")
            .and_then(|it| selector_of(it, "spec.podSelector")),
        None => {
            Err(malformed("spec.podSelector: write podSelector: {} to select every pod of the namespace"))
        }
    };
    let selection = pods.map(|pods| Selection::Pods { namespaces, pods });
    judgement(parse::<PolicySpec>(spec, "spec").map(|policy| (validate(&policy), policy)), selection)
}

fn read_cluster_egg(spec: &Value) -> Result<Accepted, Rejection> {
    refuse_no_object(spec)?;
    let parsed = parse::<ClusterEggSpec>(spec, "spec")?;
    let problems = validate_cluster(&parsed);
    let namespaces = selector_of(parsed.namespace_selector.unwrap_or_default(), "spec.namespaceSelector");
    if let Some(nodes) = parsed.node_selector {
        let selection = selector_of(nodes, "spec.nodeSelector").map(Selection::Nodes);
        return judgement(Ok((problems, parsed.policy)), selection);
    }
    // Without a podSelector there is a problem already.
    let pods = parsed.pod_selector.map(|pods| selector_of(pods, "spec.podSelector")).transpose();
    let selection = match (namespaces, pods) {
        (Ok(namespaces), Ok(Some(pods))) => {
            Ok(Selection::Pods { namespaces: Namespaces::Matching(namespaces), pods })
        }
        (Ok(_), Ok(None)) => Err(malformed("spec.podSelector: is missing")),
        (Err(rejection), _) | (_, Err(rejection)) => Err(rejection),
    };
    judgement(Ok((problems, parsed.policy)), selection)
}

/// Everything there is to say against it, the policy first; or what can be enforced.
fn judgement(
    policy: Result<(Vec<Problem>, PolicySpec), Rejection>,
    selection: Result<Selection, Rejection>,
) -> Result<Accepted, Rejection> {
    let policy = policy.and_then(|(problems, policy)| match rejection_of(&problems) {
        Some(rejection) => Err(rejection),
        None => Ok(policy),
    });
    match (policy, selection) {
        (Ok(policy), Ok(selection)) => Ok(Accepted { selection, policy: Arc::new(policy) }),
        (Err(rejection), selection) => Err(Rejection { selection: selection.ok(), ..rejection }),
        (Ok(_), Err(rejection)) => Err(rejection),
    }
}

fn rejection_of(problems: &[Problem]) -> Option<Rejection> {
    if problems.is_empty() {
        return None;
    }
    let mut message =
        problems.iter().take(MAX_PROBLEMS).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if problems.len() > MAX_PROBLEMS {
        message.push_str(&format!("; and {} more", problems.len() - MAX_PROBLEMS));
    }
    Some(Rejection { reason: "Invalid", message, selection: None })
}

fn selector_of(selector: LabelSelector, path: &str) -> Result<Selector, Rejection> {
    selector_at(selector, path).map_err(invalid_selector)
}

fn refuse_no_object(spec: &Value) -> Result<(), Rejection> {
    if spec.is_object() {
        Ok(())
    } else {
        Err(malformed("spec: write an object, with podSelector and egress"))
    }
}

fn parse<T: DeserializeOwned>(value: &Value, path: &str) -> Result<T, Rejection> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string().as_str() {
            "." => path.to_owned(),
            below => format!("{path}.{below}"),
        };
        malformed(&format!("{path}: {}", error.inner()))
    })
}

fn malformed(message: &str) -> Rejection {
    Rejection { reason: "Malformed", message: message.to_owned(), selection: None }
}

fn invalid_selector(message: String) -> Rejection {
    Rejection { reason: "InvalidSelector", message, selection: None }
}

#[cfg(test)]
mod tests;
