//! [`Egg`] and [`ClusterEgg`]: what users write.
#![allow(clippy::duplicated_attributes, reason = "the attributes of printcolumn repeat per column")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Dns, EggStatus, EgressRule, Shaping};

/// What the selected pods may reach, and how fast. A pod that some Egg in mode Enforce selects reaches only
/// what its Eggs allow; a pod that no Egg selects is not touched.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "l7egg.dev",
    version = "v1alpha1",
    kind = "Egg",
    namespaced,
    shortname = "egg",
    category = "l7egg",
    status = "EggStatus",
    derive = "PartialEq",
    doc = "Egress policy and bandwidth limits for the pods of one namespace.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods.selected"),
    printcolumn(name = "Enforced", type_ = "integer", json_path = ".status.pods.enforced"),
    printcolumn(name = "Audited", type_ = "integer", json_path = ".status.pods.audited"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.pods.failed", priority = 1),
    printcolumn(name = "Limit", type_ = "string", json_path = ".status.egressLimit", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    cel
)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
#[x_kube(validation = Rule::new("!(has(self.containers) && size(self.containers) > 0 && has(self.shaping))")
    .message("a bandwidth limit is one of the pod's interface, which all its containers share: write it in an Egg without containers"))]
pub struct EggSpec {
    /// The pods of the Egg's namespace that it is for. `{}` selects all of them.
    pub pod_selector: LabelSelector,
    /// What these pods may reach, and how.
    #[serde(flatten)]
    pub policy: PolicySpec,
}

/// The same as an Egg, for pods of any namespace. What a ClusterEgg denies no Egg can allow.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "l7egg.dev",
    version = "v1alpha1",
    kind = "ClusterEgg",
    shortname = "cegg",
    category = "l7egg",
    status = "EggStatus",
    derive = "PartialEq",
    doc = "Egress policy and bandwidth limits for pods of several namespaces, or for nodes.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods.selected"),
    printcolumn(name = "Enforced", type_ = "integer", json_path = ".status.pods.enforced"),
    printcolumn(name = "Audited", type_ = "integer", json_path = ".status.pods.audited"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.pods.failed", priority = 1),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.selected"),
    printcolumn(name = "Nodes-Enforced", type_ = "integer", json_path = ".status.nodes.enforced"),
    printcolumn(name = "Nodes-Failed", type_ = "integer", json_path = ".status.nodes.failed", priority = 1),
    printcolumn(name = "Limit", type_ = "string", json_path = ".status.egressLimit", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    cel
)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
#[x_kube(validation = Rule::new("!(has(self.nodeSelector) && (has(self.podSelector) || has(self.namespaceSelector)))")
    .message("write either nodeSelector (a host firewall) or podSelector and namespaceSelector, not both"))]
#[x_kube(validation = Rule::new("has(self.nodeSelector) || has(self.podSelector)")
    .message("write podSelector: {} to select every pod of the namespaces, or matchLabels in it to select some"))]
#[x_kube(validation = Rule::new("!(has(self.containers) && size(self.containers) > 0 && has(self.shaping))")
    .message("a bandwidth limit is one of the pod's interface, which all its containers share: write it in an Egg without containers"))]
#[x_kube(validation = Rule::new("!(has(self.nodeSelector) && (has(self.containers) || has(self.shaping)))")
    .message("containers and shaping are for pods: leave them out where there is a nodeSelector"))]
pub struct ClusterEggSpec {
    /// The namespaces whose pods are meant. Not written or `{}`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LabelSelector")]
    pub namespace_selector: Option<LabelSelector>,
    /// The pods of these namespaces. `{}` selects all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LabelSelector")]
    pub pod_selector: Option<LabelSelector>,
    /// Instead of pods: the nodes whose own processes are meant, all that are in no pod. What a node needs to stay in the
    /// cluster remains reachable; `status.guard` says what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LabelSelector")]
    pub node_selector: Option<LabelSelector>,
    /// What these pods or nodes may reach, and how. For nodes without `containers`, `shaping`, `dns.refuseUnmatched`,
    /// `dns.servers`, and names in Deny rules; at most 61 rules, of which a Deny rule counts as four.
    #[serde(flatten)]
    pub policy: PolicySpec,
}

/// What Egg and ClusterEgg have in common: everything but whom it is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// Only these containers of the selected pods, by name; init and ephemeral ones too. Not written: all. A container
    /// that no Egg of its pod is for is free. Bandwidth limits are in Eggs without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub containers: Vec<String>,
    /// Enforce denies what no rule allows. Audit denies nothing, opens nothing, and records what would be denied
    /// if it were Enforce.
    #[serde(default)]
    pub mode: Mode,
    /// The rules. Deny beats Allow; otherwise what any rule allows is allowed. No rules at all allow nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub egress: Vec<EgressRule>,
    /// How names are treated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Dns")]
    pub dns: Option<Dns>,
    /// How fast the pods may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Shaping")]
    pub shaping: Option<Shaping>,
}

/// What happens to traffic that no rule allows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Mode {
    /// It is denied.
    #[default]
    Enforce,
    /// The Egg denies nothing and opens nothing; what would be denied were it enforced is recorded.
    Audit,
}
