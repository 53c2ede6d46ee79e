//! Where a policy comes from.

use l7egg_crds::PolicySpec;

/// One accepted Egg or ClusterEgg that selects a pod.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// For messages: `Egg shop/checkout`, `ClusterEgg baseline`.
    pub name: String,
    /// Its policy.
    pub spec: &'a PolicySpec,
}
