//! The CustomResourceDefinitions as YAML, from the types.

use kube::CustomResourceExt;

use crate::{ClusterEgg, Egg, EggAssignment};

/// File name and YAML text of every CustomResourceDefinition. `cargo xtask crds` writes them to
/// `manifests/crds`.
///
/// # Panics
/// Never: the definitions are made of values that YAML can always express.
pub fn manifests() -> Vec<(&'static str, String)> {
    [
        ("eggs.l7egg.dev.yaml", Egg::crd()),
        ("clustereggs.l7egg.dev.yaml", ClusterEgg::crd()),
        ("eggassignments.l7egg.dev.yaml", EggAssignment::crd()),
    ]
    .into_iter()
    .map(|(file, crd)| (file, serde_yaml::to_string(&crd).expect("a CRD is plain data")))
    .collect()
}
