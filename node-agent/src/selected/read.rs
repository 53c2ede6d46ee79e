//! From the API server's objects to what of them decides: nothing else is kept.

use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Resource,
    api::{ObjectMeta, PartialObjectMeta},
};
use l7egg_crds::{
    CONDITION_ACCEPTED, ClusterEgg, Condition, ConditionStatus, EGRESS_BANDWIDTH_ANNOTATION, Egg, Namespaces,
    Selection, selector_at,
};
use serde::Deserialize;
use serde_json::Value;

use super::fields::{Fields, Spec, Status};
use super::{NamedEgg, NamedNamespace, NodePod};

/// Those fields of a pod that are used: the others are not even decoded.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "Pod")]
pub struct PodObject {
    /// Name, namespace, uid, labels, annotations.
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    host_network: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

/// An Egg as it comes, without its rules: they can be a megabyte, in every Egg of the cluster.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "Egg")]
pub struct EggObject {
    /// Name, namespace, generation, whether it is being deleted.
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: Fields<Spec>,
    #[serde(default)]
    pub(super) status: Fields<Status>,
}

/// The same of a ClusterEgg.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "ClusterEgg")]
pub struct ClusterEggObject {
    /// Name, generation, whether it is being deleted.
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: Fields<Spec>,
    #[serde(default)]
    pub(super) status: Fields<Status>,
}

/// A pod of the node.
#[must_use]
pub fn pod(object: PodObject) -> NodePod {
    let annotations = object.metadata.annotations.unwrap_or_default();
    let addresses = object.status.pod_ips.into_iter().flatten();
    NodePod {
        namespace: object.metadata.namespace.unwrap_or_default(),
        name: object.metadata.name.unwrap_or_default(),
        uid: object.metadata.uid.unwrap_or_default(),
        labels: object.metadata.labels.unwrap_or_default(),
        host_network: object.spec.host_network.unwrap_or(false),
        egress_bandwidth: annotations.get(EGRESS_BANDWIDTH_ANNOTATION).cloned(),
        is_ending: object.metadata.deletion_timestamp.is_some(),
        addresses: addresses.filter_map(|address| address.ip.parse().ok()).collect(),
        finished: matches!(object.status.phase.as_deref(), Some("Succeeded" | "Failed")),
    }
}

/// A namespace.
#[must_use]
pub fn namespace(object: PartialObjectMeta<Namespace>) -> NamedNamespace {
    NamedNamespace {
        name: object.metadata.name.unwrap_or_default(),
        labels: object.metadata.labels.unwrap_or_default(),
        is_ending: object.metadata.deletion_timestamp.is_some(),
    }
}

/// An Egg.
#[must_use]
pub fn egg(object: EggObject) -> NamedEgg {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let name = egg_prefix(&namespace) + object.metadata.name.as_deref().unwrap_or_default();
    let pods = selector(object.spec.get("podSelector"));
    let selection = pods.map(|pods| Selection::Pods { namespaces: Namespaces::One(namespace), pods });
    named(&object.metadata, &object.spec, &object.status, name, selection)
}

/// A ClusterEgg.
#[must_use]
pub fn cluster_egg(object: ClusterEggObject) -> NamedEgg {
    let name = format!("ClusterEgg {}", object.metadata.name.as_deref().unwrap_or_default());
    let spec = &object.spec;
    let namespaces = match spec.get("namespaceSelector") {
        Value::Null => selector(&Value::Object(serde_json::Map::new())),
        written => selector(written),
    };
    let selection = namespaces.zip(selector(spec.get("podSelector")));
    let selection = selection
        .map(|(namespaces, pods)| Selection::Pods { namespaces: Namespaces::Matching(namespaces), pods });
    named(&object.metadata, spec, &object.status, name, selection)
}

/// How the names of a namespace's Eggs begin.
pub(super) fn egg_prefix(namespace: &str) -> String {
    format!("Egg {namespace}/")
}

fn named(
    metadata: &ObjectMeta,
    spec: &Fields<Spec>,
    status: &Fields<Status>,
    name: String,
    selection: Option<Selection>,
) -> NamedEgg {
    // What it asked for ends with the order to delete it, whoever's finalizers it waits for. The order is a generation of its own, which
    // the operator does not judge any more.
    let is_ending = metadata.deletion_timestamp.is_some();
    let denies = spec.get("mode") != "Audit" && !is_ending;
    NamedEgg {
        name,
        selection: selection.filter(|_| denies),
        accepted: if is_ending { Some(true) } else { accepted(metadata, status) },
        stays_in_force: !status.get("inForceGeneration").is_null(),
    }
}

fn accepted(metadata: &ObjectMeta, status: &Fields<Status>) -> Option<bool> {
    let conditions = Vec::<Condition>::deserialize(status.get("conditions")).ok()?;
    let condition = conditions.iter().find(|condition| condition.type_ == CONDITION_ACCEPTED)?;
    let is_of_now = condition.observed_generation == metadata.generation;
    is_of_now.then_some(condition.status == ConditionStatus::True)
}

fn selector(written: &Value) -> Option<kube::core::Selector> {
    selector_at(LabelSelector::deserialize(written).ok()?, "").ok()
}
