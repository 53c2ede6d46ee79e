//! How an Egg treats DNS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// DNS settings of an Egg.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Answer REFUSED at once to queries for names that no rule can match, so that DNS itself is no way out.
    /// Not there yet: an Egg that sets it is not accepted.
    #[serde(default)]
    pub refuse_unmatched: bool,
}
