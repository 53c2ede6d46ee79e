//! From API objects to the index's plain structs. Whatever an object contains, one that cannot be read
//! becomes a value that says so, and the others are not held up.

mod assignment;
mod egg;
mod guard;
mod node;
mod pod;

pub use assignment::observed;
pub use egg::{as_judged, cluster_egg, cluster_egg_key, egg, egg_key, judge, judge_to_assign};
pub use guard::{guarded, judged_safely};
pub use node::{NodeObject, node};
pub use pod::{PodObject, pod};

use kube::api::ObjectMeta;

/// A resource version as a number; 0 if it is none. Kubernetes documents them as opaque, but every API
/// server with etcd counts, and since 1.35 comparing them is allowed
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
pub fn resource_version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
