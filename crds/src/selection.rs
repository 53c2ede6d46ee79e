//! Which pods or nodes an Egg is for. One function for all who ask: the operator, which assigns them, and the agents, which hold
//! new ones until they are assigned.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use crate::SYSTEM_NAMESPACE;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What an Egg or ClusterEgg selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Pods.
    Pods {
        /// Of which namespaces.
        namespaces: Namespaces,
        /// Pods by their labels.
        pods: Selector,
    },
    /// Nodes by their labels, for the processes that are in no pod.
    Nodes(Selector),
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
        let Selection::Pods { namespaces, pods } = self else { return false };
        let namespace_matches = match namespaces {
            Namespaces::One(own) => own == namespace,
            Namespaces::Matching(selector) => {
                namespace != SYSTEM_NAMESPACE
                    && (selector.selects_all()
                        || namespace_labels.is_some_and(|labels| selector.matches(labels)))
            }
        };
        namespace_matches && pods.matches(pod_labels)
    }

    /// Whether it turns on the labels of its namespace, which are not known yet, that a pod of this namespace with these labels is
    /// selected.
    pub fn may_select(&self, namespace: &str, pod_labels: &Labels) -> bool {
        let Selection::Pods { pods, .. } = self else { return false };
        self.reads_namespace_labels() && namespace != SYSTEM_NAMESPACE && pods.matches(pod_labels)
    }

    /// Whether a node with these labels is selected.
    pub fn selects_node(&self, labels: &Labels) -> bool {
        matches!(self, Selection::Nodes(nodes) if nodes.matches(labels))
    }

    /// Whether the labels of namespaces decide anything.
    pub fn reads_namespace_labels(&self) -> bool {
        matches!(
            self,
            Selection::Pods { namespaces: Namespaces::Matching(selector), .. } if !selector.selects_all()
        )
    }
}

/// A selector as written at `path`, for programs.
///
/// # Errors
/// A sentence that says where it is wrong and what to write.
pub fn selector_at(selector: LabelSelector, path: &str) -> Result<Selector, String> {
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let some = requirement.values.as_ref().is_some_and(|values| !values.is_empty());
        let wrong = match requirement.operator.as_str() {
            "In" | "NotIn" if !some => format!("{} needs values", requirement.operator),
            "Exists" | "DoesNotExist" if some => format!("{} takes no values", requirement.operator),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => continue,
            other => format!("{other:?} is no operator: write In, NotIn, Exists or DoesNotExist"),
        };
        return Err(format!("{path}.matchExpressions[{index}]: {wrong}"));
    }
    Selector::try_from(selector).map_err(|error| format!("{path}: {error}"))
}
