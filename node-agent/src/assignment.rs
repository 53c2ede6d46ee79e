//! An [`EggAssignment`](l7egg_crds::EggAssignment) as it comes from the API server: readable, or not.

use std::{fmt, sync::Arc};

use kube::api::DynamicObject;
use l7egg_crds::{
    AssignedHost, AssignedPod, EggAssignmentSpec, EggAssignmentStatus, EggKind, EggReference, PodDns,
    PolicySpec, RateShare, SYSTEM_NAMESPACE, UnknownField, unknown_in_assigned_policy,
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
            match unknown_in_assigned_policy(&data["spec"]).first() {
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
mod tests {
    use serde_json::json;

    use super::*;

    fn object(spec: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "l7egg.dev/v1alpha1", "kind": "EggAssignment",
            "metadata": {"namespace": "shop", "name": "checkout-x", "uid": "u1", "generation": 3},
            "spec": spec,
        }))
        .unwrap()
    }

    fn spec() -> Value {
        json!({
            "node": "node1",
            "egg": {"kind": "Egg", "namespace": "shop", "name": "checkout", "uid": "e1", "generation": 7},
            "policy": {"mode": "Enforce", "egress": []},
            "pods": [{"namespace": "shop", "name": "a", "uid": "p1"}],
        })
    }

    #[test]
    fn reads_what_the_operator_writes() {
        let read = AssignmentObject::read(&object(spec()));
        assert_eq!(read.key.to_string(), "shop/checkout-x");
        assert_eq!(read.generation, Some(3));
        let assignment = read.content.unwrap();
        assert_eq!(egg_name(&assignment.egg), "Egg shop/checkout");
        assert_eq!(assignment.pods.len(), 1);
    }

    #[test]
    fn says_where_it_cannot_read_and_keeps_the_pods() {
        let mut bad = spec();
        bad["policy"]["egress"] = json!([{"to": [{"cidr": 17}]}]);
        let unreadable = AssignmentObject::read(&object(bad)).content.unwrap_err();
        assert!(unreadable.message.contains("shop/checkout-x"), "{}", unreadable.message);
        assert!(unreadable.message.contains("spec.policy.egress[0].to[0].cidr"), "{}", unreadable.message);
        assert_eq!(unreadable.pods.unwrap()[0].uid, "p1");
    }

    #[test]
    fn what_a_newer_operator_asks_for_is_not_left_out_without_a_word() {
        let mut newer = spec();
        newer["policy"]["egress"] = json!([{"to": [{"cidr": "10.0.0.0/8", "asn": 64496}]}]);
        let unreadable = AssignmentObject::read(&object(newer)).content.unwrap_err();
        assert!(unreadable.message.contains("spec.policy.egress[0].to[0].asn"), "{}", unreadable.message);
        assert!(unreadable.message.contains("upgrade the node agents"), "{}", unreadable.message);
        assert_eq!(unreadable.pods.unwrap()[0].uid, "p1");
        // What does not restrict may be left out.
        let mut beside = spec();
        beside["pods"][0]["zone"] = json!("a");
        assert!(AssignmentObject::read(&object(beside)).content.is_ok());
    }

    #[test]
    fn of_a_pod_that_cannot_be_read_the_uid_is_enough() {
        let mut bad = spec();
        bad["pods"][0]["hostNetwork"] = json!("what");
        let unreadable = AssignmentObject::read(&object(bad)).content.unwrap_err();
        assert!(unreadable.message.contains("spec.pods[0].hostNetwork"), "{}", unreadable.message);
        assert_eq!(unreadable.pods.unwrap()[0].uid, "p1");
    }

    #[test]
    fn without_readable_pods_there_are_none_to_name() {
        for pods in [json!("x"), json!([{"name": "a"}])] {
            let mut bad = spec();
            bad["pods"] = pods;
            assert_eq!(AssignmentObject::read(&object(bad)).content.unwrap_err().pods, None);
        }
        let nothing = AssignmentObject::read(&object(json!(7))).content.unwrap_err();
        assert!(nothing.message.contains("cannot be read: spec: invalid type"), "{}", nothing.message);
    }

    #[test]
    fn a_node_is_a_subject_of_its_own() {
        let mut host = spec();
        host["pods"] = json!([]);
        host["host"] = json!({"podCIDRs": ["10.88.1.0/24"]});
        host["egg"] = json!({"kind": "ClusterEgg", "name": "all", "uid": "e2", "generation": 1});
        let mut object = object(host.clone());
        object.metadata.namespace = Some(SYSTEM_NAMESPACE.into());
        let assignment = AssignmentObject::read(&object).content.unwrap();
        assert_eq!(assignment.host.unwrap().pod_cidrs, ["10.88.1.0/24"]);
        assert_eq!((assignment.pods[0].uid.as_str(), assignment.pods[0].name.as_str()), (NODE_UID, "node1"));
        object.data["spec"]["policy"]["egress"] = json!("what");
        let unreadable = AssignmentObject::read(&object).content.unwrap_err();
        assert_eq!(unreadable.pods.unwrap()[0].uid, NODE_UID);
    }

    #[test]
    fn who_owns_a_namespace_owns_no_other() {
        let of = |namespace: &str, change: &dyn Fn(&mut Value)| {
            let mut spec = spec();
            change(&mut spec);
            let mut object = object(spec);
            object.metadata.namespace = Some(namespace.into());
            AssignmentObject::read(&object)
        };
        let cluster = |spec: &mut Value| {
            spec["egg"] = json!({"kind": "ClusterEgg", "name": "all", "uid": "e2", "generation": 1})
        };
        let host = |spec: &mut Value| spec["host"] = json!({"podCIDRs": []});
        let node = |spec: &mut Value| {
            cluster(spec);
            host(spec);
        };
        for (namespace, change) in [
            ("mine", &(|_: &mut Value| ()) as &dyn Fn(&mut Value)),
            ("shop", &|spec| spec["pods"][0]["namespace"] = json!("other")),
            ("shop", &|spec| spec["egg"]["namespace"] = json!("other")),
            ("shop", &host),
            ("shop", &|spec| spec["pods"][0]["uid"] = json!("node")),
            ("shop", &|spec| spec["pods"][0]["uid"] = json!("0123456789abcdef0123456789abcdef")),
            ("shop", &cluster),
            ("shop", &node),
        ] {
            let object = of(namespace, change);
            let message = &object.content.as_ref().unwrap_err().message;
            assert!(message.contains("is not one of the operator's"), "{message}");
            assert!(object.pods().is_empty());
        }
        for change in [&cluster as &dyn Fn(&mut Value), &node] {
            assert!(of(SYSTEM_NAMESPACE, change).content.is_ok());
        }
        // Nor by what cannot be read.
        let unread = |namespace: &str, uid: &str, host: bool| {
            let object = of("shop", &|spec| {
                spec["policy"]["egress"] = json!("what");
                spec["pods"] = json!([{"namespace": namespace, "name": "a", "uid": uid}]);
                if host {
                    spec["host"] = json!({});
                }
            });
            object.pods().len()
        };
        assert_eq!((unread("shop", "p1", false), unread("other", "p1", false)), (1, 0));
        assert_eq!((unread("shop", "node", false), unread("other", "p1", true)), (0, 0));
    }

    #[test]
    fn a_pod_listed_twice_is_one_pod() {
        let mut twice = spec();
        twice["pods"] = json!([
            {"namespace": "shop", "name": "a", "uid": "p1"}, {"namespace": "shop", "name": "a", "uid": "p1"},
        ]);
        assert_eq!(AssignmentObject::read(&object(twice)).pods().len(), 1);
    }
}
