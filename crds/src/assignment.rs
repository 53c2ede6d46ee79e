//! [`EggAssignment`]: what the operator tells the agent of one node about one Egg.
#![allow(clippy::duplicated_attributes, reason = "the attributes of printcolumn repeat per column")]

use std::borrow::Cow;
use std::fmt;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::PolicySpec;

/// One Egg on one node: its policy, and the pods of that node which it selects. Written by the operator
/// (spec) and by the node's agent (status); not for people to write.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "l7egg.dev",
    version = "v1alpha1",
    kind = "EggAssignment",
    namespaced,
    shortname = "eggassign",
    category = "l7egg",
    status = "EggAssignmentStatus",
    derive = "PartialEq",
    doc = "One Egg on one node; written by the l7egg operator for the node's agent.",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.egg.kind"),
    printcolumn(name = "Egg", type_ = "string", json_path = ".spec.egg.name"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EggAssignmentSpec {
    /// Name of the node.
    pub node: String,
    /// The Egg that this comes from.
    pub egg: EggReference,
    /// The Egg's policy, as the Egg has it.
    pub policy: PolicySpec,
    /// This node's parts of the rate, where `policy.shaping` has one that pods share: for all of them, or for each
    /// namespace. Not written: the whole rate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<RateShare>,
    /// The node itself is meant: the processes that are in no pod. `pods` is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AssignedHost")]
    pub host: Option<AssignedHost>,
    /// The node's pods that the Egg selects, in order of namespace and name.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub pods: Vec<AssignedPod>,
}

/// What [`NODE_LABEL`](crate::NODE_LABEL) says for this node: its name. A label holds 63 bytes and a node's
/// name can have 253, so of a longer one it says the beginning and a hash.
pub fn node_label_value(node: &str) -> Cow<'_, str> {
    const MAX: usize = 63;
    const DIGITS: usize = 16;
    if node.len() <= MAX {
        return Cow::Borrowed(node);
    }
    let hash = Sha256::digest(node.as_bytes());
    let digits: String = hash.iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
    // Names of nodes are ASCII; one that is not has no label that could be cut, and is not cut inside a character.
    let start = node.get(..MAX - 1 - DIGITS).unwrap_or_default();
    Cow::Owned(format!("{start}-{digits}"))
}

/// A node's part of a shared rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateShare {
    /// The namespace whose pods share it; not written: all pods of the Egg do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Bits per second on this node.
    pub bits_per_second: i64,
}

/// What the agent has to know of its node as the subject of an Egg.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignedHost {
    /// The networks of its pods (`spec.podCIDRs` of the Node): they stay reachable, for the kubelet's probes.
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
}

/// Which Egg an assignment comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EggReference {
    /// Egg or ClusterEgg.
    pub kind: EggKind,
    /// Namespace of an Egg; a ClusterEgg has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the object.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
    /// Generation of the object that `policy` was taken from.
    pub generation: i64,
}

/// Kind of object that a policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EggKind {
    /// A namespace's Egg.
    Egg,
    /// A ClusterEgg.
    ClusterEgg,
}

/// A pod as the agent has to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignedPod {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Uid, by which its cgroup is found.
    pub uid: String,
    /// The pod runs in its node's network namespace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
    /// Where the pod's resolver asks.
    #[serde(default)]
    pub dns: PodDns,
    /// Names of its containers, of all kinds, where the Egg is for certain ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// Its annotation [`EGRESS_BANDWIDTH_ANNOTATION`](crate::EGRESS_BANDWIDTH_ANNOTATION), as it is written: the
    /// bandwidth limit of a pod that no Egg limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_bandwidth: Option<String>,
}

/// What decides a pod's `resolv.conf`: `spec.dnsPolicy`, and `nameservers` and `searches` of `spec.dnsConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodDns {
    /// `ClusterFirst`, `ClusterFirstWithHostNet`, `Default` or `None`, as in the pod.
    // Not "": as a default in a schema, API servers of 1.20 take that for null.
    #[serde(default = "cluster_first")]
    pub policy: String,
    /// Extra resolvers of `dnsConfig`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Extra search domains of `dnsConfig`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<String>,
}

impl Default for PodDns {
    fn default() -> Self {
        PodDns { policy: cluster_first(), nameservers: Vec::new(), searches: Vec::new() }
    }
}

/// What a pod has that does not say.
fn cluster_first() -> String {
    "ClusterFirst".to_owned()
}

/// What the agent says of an assignment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EggAssignmentStatus {
    /// Generation of the assignment that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The boot of the node that this status is about, as `status.nodeInfo.bootID` of the Node has it. What is enforced does not
    /// outlive it. Older agents do not write it: what they say counts, whenever the node has booted.
    #[serde(default, rename = "bootID", skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// One entry for each pod of the spec, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodReport>,
    /// What became of the node itself, if it is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HostReport")]
    pub host: Option<HostReport>,
}

impl EggAssignmentStatus {
    /// Whether it is about another boot of its node than this one: what was in force then is not any more. What does not say counts.
    #[must_use]
    pub fn is_of_another_boot(&self, boot_id: Option<&str>) -> bool {
        self.boot_id.as_deref().zip(boot_id).is_some_and(|(own, other)| own != other)
    }
}

/// What became of a node as the subject of an Egg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// Whether it is enforced.
    pub state: PodState,
    /// One CamelCase word, when it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence that names the object and what can be done, when it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What the node keeps reachable whatever the Egg says: `API server 10.0.0.1 (TCP 6443)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guard: Vec<String>,
}

/// What became of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodReport {
    /// Uid of the pod.
    pub uid: String,
    /// Whether it is enforced.
    pub state: PodState,
    /// One CamelCase word, when it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence that names the object and what can be done, when it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The strictest bandwidth limit that holds for the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_limit: Option<EgressLimit>,
}

/// A bandwidth limit, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressLimit {
    /// Bits per second; of a rate that pods share, the node's part.
    pub bits_per_second: i64,
    /// Whose it is: `Egg shop/checkout`, `ClusterEgg all`, or the pod's annotation.
    pub of: String,
}

impl fmt::Display for EgressLimit {
    /// `5M of Egg shop/checkout`: the rate in the largest unit that leaves it whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.bits_per_second;
        for (unit, suffix) in [(1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")] {
            if rate >= unit && rate % unit == 0 {
                return write!(f, "{}{suffix} of {}", rate / unit, self.of);
            }
        }
        write!(f, "{rate} of {}", self.of)
    }
}

/// State of one pod under one assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodState {
    /// The agent waits for something, such as the pod's cgroup.
    Pending,
    /// The kernel enforces the policy for this pod.
    Enforced,
    /// The same, but the policy is in mode Audit: it denies nothing, and what it would deny is recorded.
    Audited,
    /// The agent could not do it.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_quantities() {
        for (bits_per_second, text) in
            [(5_000_000, "5M"), (2_000_000_000, "2G"), (64_001, "64001"), (6400, "6400")]
        {
            let limit = EgressLimit { bits_per_second, of: "Egg shop/checkout".into() };
            assert_eq!(limit.to_string(), format!("{text} of Egg shop/checkout"));
        }
    }

    #[test]
    fn labels_of_nodes_fit() {
        assert_eq!(node_label_value("node1"), "node1");
        let longest = "n".repeat(63);
        assert_eq!(node_label_value(&longest), longest);
        let (a, b) = (format!("{}a", "n".repeat(99)), format!("{}b", "n".repeat(99)));
        assert_ne!(node_label_value(&a), node_label_value(&b));
        assert_eq!(node_label_value(&a).len(), 63);
        assert_eq!(node_label_value(&a), node_label_value(&a));
    }
}
