//! An [`EggAssignment`](l7egg_crds::EggAssignment) as it comes from the API server: readable, or not.

use std::{fmt, sync::Arc};

use kube::api::DynamicObject;
use l7egg_crds::{
    AssignedHost, AssignedPod, EggAssignmentSpec, EggAssignmentStatus, EggKind, EggReference, PodDns,
    PolicySpec, RateShare, SYSTEM_NAMESPACE, UnknownField, unknown_in_assignment,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{datapath::NODE_UID, hold::is_static};

/// Which assignment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AssignmentKey {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl AssignmentKey {
    /// The key of an object.
    #[must_use]
    pub fn of(object: &DynamicObject) -> Self {
        AssignmentKey {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for AssignmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One object, read as far as it can be.
#[derive(Clone, Debug, PartialEq)]
pub struct AssignmentObject {
    /// Which object.
    pub key: AssignmentKey,
    /// Its uid: an object that is deleted and made again has another.
    pub uid: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// What it says.
    pub content: Result<Assignment, Unreadable>,
    /// The status that it has at the API server, if that can be read.
    pub reported: Option<EggAssignmentStatus>,
}

/// A readable assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The Egg it comes from.
    pub egg: EggReference,
    /// What the Egg says.
    pub policy: Arc<PolicySpec>,
    /// This node's parts of a rate that the Egg's pods share.
    pub shares: Vec<RateShare>,
    /// The node itself is what the Egg selects.
    pub host: Option<AssignedHost>,
    /// The pods of this node that the Egg selects; the node itself passes for one, with [`NODE_UID`].
    pub pods: Vec<AssignedPod>,
}

/// What is left of an object that this agent cannot read, because it was written past validation or by an
/// operator of another version.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Where it goes wrong, and how.
    pub message: String,
    /// Its pods, where these at least can be read.
    pub pods: Option<Vec<AssignedPod>>,
}

impl AssignmentObject {
    /// Reads an object. Never fails: what cannot be read is in [`AssignmentObject::content`].
    #[must_use]
    pub fn read(object: &DynamicObject) -> Self {
        let key = AssignmentKey::of(object);
        AssignmentObject {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            generation: object.metadata.generation,
            content: read_content(&key, &object.data),
            reported: read(&object.data["status"]).ok(),
            key,
        }
    }

    /// Its pods, as far as they can be read.
    #[must_use]
    pub fn pods(&self) -> &[AssignedPod] {
        match &self.content {
            Ok(assignment) => &assignment.pods,
            Err(unreadable) => unreadable.pods.as_deref().unwrap_or_default(),
        }
    }
}

/// The Egg's name for people: `Egg shop/checkout`, `ClusterEgg baseline`.
#[must_use]
pub fn egg_name(egg: &EggReference) -> String {
    match (&egg.kind, &egg.namespace) {
        (EggKind::Egg, Some(namespace)) => format!("Egg {namespace}/{}", egg.name),
        (EggKind::Egg, None) => format!("Egg {}", egg.name),
        (EggKind::ClusterEgg, _) => format!("ClusterEgg {}", egg.name),
    }
}

fn read_content(key: &AssignmentKey, data: &Value) -> Result<Assignment, Unreadable> {
    match read::<EggAssignmentSpec>(&data["spec"]) {
        Ok(spec) if is_out_of_place(key, &spec) => Err(Unreadable {
            message: format!(
                "EggAssignment {key} is not one of the operator's, and nobody else's counts: that of an Egg is in the Egg's own namespace and for its pods, and that of a ClusterEgg in {SYSTEM_NAMESPACE}; delete it"
            ),
            pods: Some(Vec::new()),
        }),
        Ok(spec) => {
            let assignment = Assignment {
                egg: spec.egg,
                policy: Arc::new(spec.policy),
                shares: spec.shares,
                pods: match &spec.host {
                    Some(_) => vec![node_as_pod(&spec.node)],
                    None => unique(spec.pods),
                },
                host: spec.host,
            };
            // What is said of a pod beside what it is known by restricts nothing.
            let mut unknown = unknown_in_assignment(&data["spec"]).into_iter();
            match unknown.find(|field| !field.path.starts_with("spec.pods[")) {
                None => Ok(assignment),
                // Whatever it is, what is written is not what would be enforced without it.
                Some(UnknownField { path, .. }) => Err(Unreadable {
                    message: format!(
                        "EggAssignment {key} cannot be read: {path}: this agent ({}) knows no such field, and what it says would not be enforced: upgrade the node agents to the operator's version, or write the Egg without it",
                        env!("CARGO_PKG_VERSION")
                    ),
                    pods: Some(assignment.pods),
                }),
            }
        }
        Err(error) => Err(Unreadable {
            message: format!(
                "EggAssignment {key} cannot be read: {}; it is not written by hand: if operator and agent are of the same version, delete it and the operator writes it anew",
                place(&error)
            ),
            pods: pods_of_unreadable(key, &data["spec"]),
        }),
    }
}

/// Whoever may do everything in a namespace may write assignments there. They are for no more than an Egg there could be for.
fn is_out_of_place(key: &AssignmentKey, spec: &EggAssignmentSpec) -> bool {
    let is_here = |namespace: &str| namespace == key.namespace;
    let is_anothers = match spec.egg.kind {
        EggKind::ClusterEgg => !is_here(SYSTEM_NAMESPACE),
        EggKind::Egg => {
            spec.host.is_some()
                || !spec.egg.namespace.as_deref().is_some_and(is_here)
                || !spec.pods.iter().all(|pod| is_here(&pod.namespace))
        }
    };
    is_anothers || !spec.pods.iter().all(|pod| is_uid(&pod.uid))
}

/// Whether this can be the uid of a pod's object: not the node, and not a static pod.
fn is_uid(uid: &str) -> bool {
    uid != NODE_UID && !is_static(uid)
}

/// What can be read of the pods of an assignment that cannot be read otherwise, as far as it may name them.
fn pods_of_unreadable(key: &AssignmentKey, spec: &Value) -> Option<Vec<AssignedPod>> {
    let is_of_cluster = key.namespace == SYSTEM_NAMESPACE;
    match (&spec["host"], spec["node"].as_str()) {
        (Value::Object(_), Some(node)) if is_of_cluster => Some(vec![node_as_pod(node)]),
        _ => {
            let mut pods = unique(read_pods(&spec["pods"])?);
            // Whose namespace cannot be read is where it stands.
            let unnamed = pods.iter_mut().filter(|pod| pod.namespace.is_empty() && !is_of_cluster);
            unnamed.for_each(|pod| pod.namespace.clone_from(&key.namespace));
            pods.retain(|pod| is_uid(&pod.uid) && (is_of_cluster || pod.namespace == key.namespace));
            Some(pods)
        }
    }
}

/// `spec.pods[0].uid: missing`, and what is wrong there.
fn place(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    match error.path().to_string().as_str() {
        "." => format!("spec: {}", error.inner()),
        path => format!("spec.{path}: {}", error.inner()),
    }
}

/// The node as the subject of its policy. It asks the servers of its own resolv.conf.
fn node_as_pod(node: &str) -> AssignedPod {
    AssignedPod {
        name: node.to_owned(),
        uid: NODE_UID.to_owned(),
        host_network: true,
        dns: PodDns { policy: "Default".to_owned(), ..PodDns::default() },
        ..AssignedPod::default()
    }
}

/// A subject's name for people: `shop/checkout-1` of a pod, `node node1` of the node.
#[must_use]
pub fn subject_name(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { format!("node {name}") } else { format!("{namespace}/{name}") }
}

/// The uid is all that is needed to leave a pod as it is.
#[derive(Deserialize)]
struct PodWithUid {
    uid: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

fn read_pods(pods: &Value) -> Option<Vec<AssignedPod>> {
    let one = |value: &Value| {
        read::<AssignedPod>(value).or_else(|_| {
            read::<PodWithUid>(value).map(|pod| AssignedPod {
                namespace: pod.namespace,
                name: pod.name,
                uid: pod.uid,
                ..AssignedPod::default()
            })
        })
    };
    pods.as_array()?.iter().map(one).collect::<Result<_, _>>().ok()
}

/// The schema has uids unique; objects can be older than a schema.
fn unique(mut pods: Vec<AssignedPod>) -> Vec<AssignedPod> {
    let mut seen = std::collections::BTreeSet::new();
    pods.retain(|pod| seen.insert(pod.uid.clone()));
    pods
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(value)
}

#[cfg(test)]
mod tests;
