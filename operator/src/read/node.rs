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
    /// Its boot.
    #[serde(default)]
    pub status: NodeObjectStatus,
}

/// Those fields of a node's spec that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeObjectSpec {
    /// Networks of its pods, one of each family at most.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
}

/// Those fields of a node's status that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeObjectStatus {
    /// What the kubelet says of the machine.
    pub node_info: NodeObjectInfo,
}

/// Those fields of what a kubelet says of its machine that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeObjectInfo {
    /// Another one after each boot; empty until a kubelet says it.
    #[serde(rename = "bootID")]
    pub boot_id: String,
}

/// The node for the index; nothing if it has no name.
pub fn node(object: NodeObject) -> Option<Node> {
    Some(Node {
        name: object.metadata.name?,
        labels: object.metadata.labels.unwrap_or_default(),
        host: AssignedHost { pod_cidrs: object.spec.pod_cidrs.unwrap_or_default() },
        boot_id: Some(object.status.node_info.boot_id).filter(|id| !id.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_networks_and_boot() {
        let object = json!({
            "metadata": {"name": "n1", "labels": {"role": "edge"}},
            "spec": {"podCIDR": "10.88.1.0/24", "podCIDRs": ["10.88.1.0/24", "fd00:88::/64"]},
            "status": {"nodeInfo": {"bootID": "first", "kernelVersion": "6.1"}},
        });
        let node = node(serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!((node.name.as_str(), node.labels["role"].as_str()), ("n1", "edge"));
        assert_eq!(node.host.pod_cidrs, ["10.88.1.0/24", "fd00:88::/64"]);
        assert_eq!(node.boot_id.as_deref(), Some("first"));
        let bare = super::node(serde_json::from_value(json!({"metadata": {"name": "n2"}})).unwrap()).unwrap();
        assert!(bare.host.pod_cidrs.is_empty() && bare.boot_id.is_none());
        let no_kubelet = json!({"metadata": {"name": "n3"}, "status": {"nodeInfo": {"bootID": ""}}});
        assert_eq!(super::node(serde_json::from_value(no_kubelet).unwrap()).unwrap().boot_id, None);
    }
}
