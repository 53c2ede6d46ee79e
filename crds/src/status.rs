//! What the operator says about an Egg.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Status of an Egg or ClusterEgg.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EggStatus {
    /// The generation of the object that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The generation that stays in force, where the present one was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force_generation: Option<i64>,
    /// `Accepted` and `Programmed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many pods the Egg selects, and what became of them.
    #[serde(default)]
    pub pods: PodCounts,
    /// The same for nodes, of a ClusterEgg with a nodeSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PodCounts")]
    pub nodes: Option<PodCounts>,
    /// What these nodes keep reachable whatever the Egg says, as they report it: the first 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guard: Vec<String>,
    /// The strictest bandwidth limit that holds for any of these pods, and for how many of them if not for all:
    /// `5M of Egg shop/checkout`, `2M of ClusterEgg all (3 of 10 pods)`. It need not be this Egg's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub egress_limit: String,
}

/// Pods, or nodes, of an Egg by what became of them. One that is neither enforced, audited nor failed is pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Scheduled pods, not yet finished, or nodes, that the Egg selects.
    #[serde(default)]
    pub selected: i32,
    /// Those whose node agent enforces the Egg, as it was last accepted.
    #[serde(default)]
    pub enforced: i32,
    /// Those whose node agent records what the Egg would deny, and denies nothing by it: the Egg or the agent is in
    /// mode Audit.
    #[serde(default)]
    pub audited: i32,
    /// Those whose node agent could not do it; `Programmed` says why.
    #[serde(default)]
    pub failed: i32,
}

/// One condition, in the form of `metav1.Condition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted` or `Programmed`.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// The generation that the condition is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// One CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// Truth of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}
