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
    /// Bits per second as a Kubernetes quantity, such as `20M`.
    pub rate: Quantity,
    /// Bytes that may be sent at once after a silence, such as `64Ki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Quantity")]
    pub burst: Option<Quantity>,
    /// What the rate is for: each pod, all pods of the Egg, or the namespace.
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
    /// All pods of the namespace share it.
    Namespace,
}
