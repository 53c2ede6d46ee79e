//! The index with plain structs.

mod eggs;
mod model;
mod nodes;
mod pods;
mod relist;
mod scale;
mod tally;
mod unjudged;

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::core::{Expression, Selector};
use l7egg_crds::{
    Action, AssignedPod, Destination, EggAssignmentStatus, EggStatus, EgressRule, PodReport, PodState,
    PolicySpec,
};

use super::*;
use crate::naming::assignment_key;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn pod(namespace: &str, name: &str, node: &str, pairs: &[(&str, &str)]) -> Pod {
    Pod {
        labels: labels(pairs),
        node: node.to_owned(),
        assigned: AssignedPod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{namespace}-{name}"),
            ..AssignedPod::default()
        },
    }
}

fn policy(cidr: &str) -> PolicySpec {
    let to = vec![Destination { cidr: Some(cidr.to_owned()), ..Destination::default() }];
    PolicySpec {
        egress: vec![EgressRule { action: Action::Allow, to, ports: vec![] }],
        ..PolicySpec::default()
    }
}

/// The Egg with a rate that pods share; none if there is no scope.
fn shaped(mut egg: Egg, scope: &str) -> Egg {
    let shaping = serde_json::json!({"egress": {"rate": "50M", "scope": scope}});
    if let (Ok(accepted), false) = (&mut egg.spec, scope.is_empty()) {
        let policy =
            PolicySpec { shaping: serde_json::from_value(shaping).unwrap(), ..(*accepted.policy).clone() };
        accepted.policy = Arc::new(policy);
    }
    egg
}

fn app(name: &str) -> Selector {
    Expression::Equal("app".into(), name.into()).into()
}

/// An Egg for the pods of its namespace that `pods` selects.
fn egg(namespace: &str, name: &str, generation: i64, pods: Selector, cidr: &str) -> Egg {
    Egg {
        key: EggKey::egg(namespace, name),
        uid: format!("uid-{name}"),
        generation,
        resource_version: 0,
        spec: Ok(Accepted {
            selection: Selection::Pods { namespaces: Namespaces::One(namespace.to_owned()), pods },
            policy: Arc::new(policy(cidr)),
        }),
        status: EggStatus::default(),
    }
}

fn cluster_egg(name: &str, namespaces: Selector, pods: Selector) -> Egg {
    let selection = Selection::Pods { namespaces: Namespaces::Matching(namespaces), pods };
    let policy = Arc::new(policy("10.0.0.0/8"));
    Egg {
        key: EggKey::cluster(name),
        spec: Ok(Accepted { selection, policy }),
        ..egg("", name, 1, Selector::default(), "10.0.0.0/8")
    }
}

fn rejected(egg: Egg, generation: i64) -> Egg {
    let selection = egg.spec.as_ref().ok().map(|accepted| accepted.selection.clone());
    Egg { generation, spec: Err(Rejection { reason: "Invalid", message: "wrong".into(), selection }), ..egg }
}

/// The EggAssignment as the API server would have it after the operator wrote it.
fn stored(index: &Index, key: &ObjectKey, generation: i64) -> Observed {
    Observed {
        key: key.clone(),
        uid: format!("uid of {key}"),
        generation,
        resource_version: 0,
        assignment: index.desired(key),
        labelled: true,
        status: EggAssignmentStatus::default(),
    }
}

/// The same, with the agent's report that all pods are in this state.
fn reported(index: &Index, key: &ObjectKey, generation: i64, state: PodState) -> Observed {
    let mut observed = stored(index, key, generation);
    let pods = &observed.assignment.as_ref().unwrap().pods;
    let report = |pod: &AssignedPod| PodReport {
        uid: pod.uid.clone(),
        state,
        reason: "Why".into(),
        message: "so".into(),
        egress_limit: None,
    };
    observed.status = EggAssignmentStatus {
        observed_generation: Some(generation),
        pods: pods.iter().map(report).collect(),
        ..EggAssignmentStatus::default()
    };
    observed
}

fn key(egg: &Egg, node: &str) -> ObjectKey {
    assignment_key(&egg.key, node)
}

fn pods_of(index: &Index, key: &ObjectKey) -> Vec<String> {
    let pods = index.desired(key).map(|assignment| assignment.pods).unwrap_or_default();
    pods.into_iter().map(|pod| pod.name).collect()
}

fn dirty(index: &mut Index) -> BTreeSet<String> {
    let changes = index.take_changes();
    let keys =
        changes.desired.into_keys().chain(changes.shares.into_keys()).chain(changes.observed.into_keys());
    keys.map(|key| key.to_string()).collect()
}

fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

fn only(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
