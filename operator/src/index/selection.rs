//! Which pods an Egg is for.

use kube::core::{Selector, SelectorExt};
use l7egg_crds::SYSTEM_NAMESPACE;

use super::Labels;

/// The pods that an Egg or ClusterEgg selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Of which namespaces.
    pub namespaces: Namespaces,
    /// Pods by their labels.
    pub pods: Selector,
}

/// The namespaces whose pods are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// An Egg's own.
    One(String),
    /// Those that a ClusterEgg selects by their labels; never l7egg's own. A ClusterEgg for every pod would
    /// otherwise cut the operator off from the API server, and nothing could then be changed any more.
    Matching(Selector),
}

impl Selection {
    /// Whether a pod of this namespace with these labels is selected. A namespace whose labels are not known
    /// yet is selected only by a selector that asks for none.
    pub fn selects(&self, namespace: &str, namespace_labels: Option<&Labels>, pod_labels: &Labels) -> bool {
        let namespace_matches = match &self.namespaces {
            Namespaces::One(own) => own == namespace,
            Namespaces::Matching(selector) => {
                namespace != SYSTEM_NAMESPACE
                    && (selector.selects_all()
                        || namespace_labels.is_some_and(|labels| selector.matches(labels)))
            }
        };
        namespace_matches && self.pods.matches(pod_labels)
    }

    /// Whether the labels of namespaces decide anything.
    pub fn reads_namespace_labels(&self) -> bool {
        matches!(&self.namespaces, Namespaces::Matching(selector) if !selector.selects_all())
    }
}
