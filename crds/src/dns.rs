//! How an Egg treats DNS.

use crate::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a refused query is answered with (RFC 1035 §4.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RefusalCode {
    /// The server refuses to answer.
    #[default]
    #[serde(rename = "REFUSED")]
    Refused,
    /// There is no such name.
    #[serde(rename = "NXDOMAIN")]
    NxDomain,
}

/// DNS settings of an Egg. Where several Eggs select a pod, the strictest refusal holds (NXDOMAIN before
/// REFUSED), only DNS servers that all of them believe are believed, and of the times the longest `minTTL` and `ttlGrace` and
/// the shortest `maxTTL` hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Networks of the DNS servers that are believed: of the pod's own, those in none of these are judged as any other
    /// destination is, and teach no names. Not written: all of the pod's own, also those that its `dnsConfig` names. Of
    /// several Eggs each that has a list has to have the server in it. The search domains of the `dnsConfig` do not count for
    /// `refuseUnmatched`, then. Not for nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 43)))]
    pub servers: Vec<String>,
    /// Queries to the pod's own DNS servers for names that no Allow rule matches do not leave, so that DNS itself is
    /// no way out. They are answered at once. Names that would match without one of the pod's search domains behind
    /// them, or with another one there, are still asked for. Not for nodes.
    #[serde(default)]
    pub refuse_unmatched: bool,
    /// The response code for them. Not written: REFUSED, and NXDOMAIN for names with one of the pod's search domains behind
    /// them, at which resolvers go on with the next. NXDOMAIN is for images with musl (Alpine), which takes no other
    /// for an answer and would wait for its timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RefusalCode")]
    pub refusal_code: Option<RefusalCode>,
    /// An answer is believed at least this long, whatever its TTL: `30s`, `5m`. Not written: the agent's `--min-ttl`.
    #[serde(
        rename = "minTTL",
        default,
        deserialize_with = "crate::duration::optional",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Duration")]
    pub min_ttl: Option<Duration>,
    /// An answer is believed at most this long, whatever its TTL. Not written: the agent's `--max-ttl`.
    #[serde(
        rename = "maxTTL",
        default,
        deserialize_with = "crate::duration::optional",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Duration")]
    pub max_ttl: Option<Duration>,
    /// New connections may be opened this long after the TTL. Not written: the agent's `--ttl-grace`.
    #[serde(
        rename = "ttlGrace",
        default,
        deserialize_with = "crate::duration::optional",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Duration")]
    pub ttl_grace: Option<Duration>,
}
