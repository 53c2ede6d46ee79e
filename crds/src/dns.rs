//! How an Egg treats DNS.

use crate::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// DNS settings of an Egg. Where several Eggs select a pod, the strictest refusal holds, and of the times the
/// longest `minTTL` and `ttlGrace` and the shortest `maxTTL`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Answer at once, with `refusal`, queries for names that no Allow rule matches, so that DNS itself is no way
    /// out. Names that would match without one of the pod's search domains behind them are still asked for.
    #[serde(default)]
    pub refuse_unmatched: bool,
    /// What refused queries are answered with.
    #[serde(default)]
    pub refusal: DnsRefusal,
    /// An answer is believed at least this long, whatever its TTL: `30s`, `5m`. Not written: the agent's `--min-ttl`.
    #[serde(rename = "minTTL", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub min_ttl: Option<Duration>,
    /// An answer is believed at most this long, whatever its TTL. Not written: the agent's `--max-ttl`.
    #[serde(rename = "maxTTL", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub max_ttl: Option<Duration>,
    /// New connections may be opened this long after the TTL. Not written: the agent's `--ttl-grace`.
    #[serde(rename = "ttlGrace", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub ttl_grace: Option<Duration>,
}

/// Response codes for refused queries (RFC 1035 §4.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum DnsRefusal {
    /// REFUSED (5): the server will not say. musl's resolver waits for its timeout at this.
    #[default]
    #[serde(rename = "REFUSED")]
    Refused,
    /// NXDOMAIN (3): there is no such name. Every resolver fails at once, and goes on to its next search domain.
    #[serde(rename = "NXDOMAIN")]
    NxDomain,
}
