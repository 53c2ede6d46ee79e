//! Bandwidth limits.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bandwidth limits of an Egg, by direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shaping {
    /// The limit of what pods send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ShapingLimit")]
    pub egress: Option<ShapingLimit>,
}

/// One limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShapingLimit {
    /// Bits per second as a Kubernetes quantity, such as `20M`, or as tc writes them, such as `20mbit`; from 64k to
    /// 100G. What is counted are bytes on the wire, with Ethernet headers. Of several limits on a pod all hold.
    pub rate: Quantity,
    /// Bytes that may be sent at once after a silence, such as `64Ki`; at most what the rate sends in a second. Not
    /// written: what it sends in 4 ms, at least a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Quantity")]
    pub burst: Option<Quantity>,
    /// What the rate is for: each pod, all pods of the Egg together, or those of each namespace together. A
    /// shared rate holds over the whole cluster: it is divided among the nodes by the pods that they run, without those in
    /// the node's network, which cannot be limited.
    #[serde(default)]
    pub scope: ShapingScope,
}

/// What shares one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ShapingScope {
    /// Every pod has the rate for itself.
    #[default]
    Pod,
    /// All pods of the Egg share it.
    Egg,
    /// The Egg's pods of one namespace share it; for a ClusterEgg, each namespace has it.
    Namespace,
}
