//! Nodes.

use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::Resource;
use kube::api::ObjectMeta;
use l7egg_crds::AssignedHost;
use serde::Deserialize;

use crate::index::Node;

/// Those fields of a node that are used: the others are not even decoded.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "ApiNode")]
pub struct NodeObject {
    /// Name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The networks of its pods.
    #[serde(default)]
    pub spec: NodeObjectSpec,
}

/// Those fields of a node's spec that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeObjectSpec {
    /// Networks of its pods, one of each family at most.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
}

/// The node for the index; nothing if it has no name.
pub fn node(object: NodeObject) -> Option<Node> {
    Some(Node {
        name: object.metadata.name?,
        labels: object.metadata.labels.unwrap_or_default(),
        host: AssignedHost { pod_cidrs: object.spec.pod_cidrs.unwrap_or_default() },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_and_networks() {
        let object = json!({
            "metadata": {"name": "n1", "labels": {"role": "edge"}},
            "spec": {"podCIDR": "10.88.1.0/24", "podCIDRs": ["10.88.1.0/24", "fd00:88::/64"]},
        });
        let node = node(serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!((node.name.as_str(), node.labels["role"].as_str()), ("n1", "edge"));
        assert_eq!(node.host.pod_cidrs, ["10.88.1.0/24", "fd00:88::/64"]);
        let bare = super::node(serde_json::from_value(json!({"metadata": {"name": "n2"}})).unwrap()).unwrap();
        assert!(bare.host.pod_cidrs.is_empty());
    }
}
