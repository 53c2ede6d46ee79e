//! Pods.

use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::Resource;
use kube::api::ObjectMeta;
use l7egg_crds::{AssignedPod, EGRESS_BANDWIDTH_ANNOTATION, PodDns};
use serde::Deserialize;

use crate::index::Pod;

/// Most of a bandwidth annotation that is passed on: no rate is as long, and what is cut stays one that means
/// nothing.
const MAX_BANDWIDTH: usize = 40;

/// Those fields of a pod that are used: the others are not even decoded.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "ApiPod")]
pub struct PodObject {
    /// Name, namespace, uid, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Node and DNS.
    #[serde(default)]
    pub spec: PodObjectSpec,
    /// Phase.
    #[serde(default)]
    pub status: PodObjectStatus,
}

/// Those fields of a pod's spec that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodObjectSpec {
    /// Node that the pod is bound to.
    pub node_name: Option<String>,
    /// Whether it uses the node's network namespace.
    pub host_network: Option<bool>,
    /// What its resolv.conf is made of.
    pub dns_policy: Option<String>,
    /// What is added to it.
    pub dns_config: Option<DnsConfig>,
    /// Containers.
    pub containers: Option<Vec<ContainerName>>,
    /// Those that run before them.
    pub init_containers: Option<Vec<ContainerName>>,
    /// Those that were added later.
    pub ephemeral_containers: Option<Vec<ContainerName>>,
}

/// The field of a container that is used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerName {
    /// Its name.
    pub name: String,
}

/// Those fields of a pod's `dnsConfig` that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Resolvers.
    pub nameservers: Option<Vec<String>>,
    /// Search domains.
    pub searches: Option<Vec<String>>,
}

/// Those fields of a pod's status that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodObjectStatus {
    /// `Succeeded` and `Failed` pods have no running container and never will.
    pub phase: Option<String>,
}

/// The pod for the index; nothing if it is not bound yet, or finished. Its bandwidth annotation counts only if
/// pods' are `annotated`.
pub fn pod(object: PodObject, annotated: bool) -> Option<Pod> {
    let PodObject { metadata, spec, status } = object;
    let node = spec.node_name.filter(|node| !node.is_empty())?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let mut annotations = metadata.annotations.unwrap_or_default();
    let bandwidth = annotations.remove(EGRESS_BANDWIDTH_ANNOTATION).filter(|_| annotated);
    let dns_config = spec.dns_config.unwrap_or_default();
    let containers = [spec.init_containers, spec.containers, spec.ephemeral_containers];
    Some(Pod {
        labels: metadata.labels.unwrap_or_default(),
        node,
        assigned: AssignedPod {
            namespace: metadata.namespace?,
            name: metadata.name?,
            // Never the one in the annotation of a static pod's object (kubernetes.io/config.mirror): whoever may create pods can
            // write any pod's there, and an Egg of theirs would be enforced for somebody else's.
            uid: metadata.uid?,
            host_network: spec.host_network.unwrap_or(false),
            dns: PodDns {
                policy: spec.dns_policy.unwrap_or_else(|| "ClusterFirst".to_owned()),
                nameservers: dns_config.nameservers.unwrap_or_default(),
                searches: dns_config.searches.unwrap_or_default(),
            },
            containers: containers.into_iter().flatten().flatten().map(|container| container.name).collect(),
            egress_bandwidth: bandwidth.map(|text| text.chars().take(MAX_BANDWIDTH).collect()),
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value, phase: &str) -> Option<Pod> {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "a", "uid": "u", "labels": {"app": "x"}},
            "spec": spec, "status": {"phase": phase},
        });
        pod(serde_json::from_value(object).unwrap(), true)
    }

    fn bandwidth(annotation: &str, annotated: bool) -> Option<String> {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "a", "uid": "u",
                         "annotations": {"kubernetes.io/egress-bandwidth": annotation}},
            "spec": {"nodeName": "n"},
        });
        pod(serde_json::from_value(object).unwrap(), annotated).unwrap().assigned.egress_bandwidth
    }

    #[test]
    fn a_bandwidth_annotation_goes_on_as_it_is_written_unless_it_is_switched_off() {
        assert_eq!(bandwidth("10M", true).as_deref(), Some("10M"));
        assert_eq!(bandwidth("fast", true).as_deref(), Some("fast"));
        assert_eq!(bandwidth(&"1".repeat(100_000), true), Some("1".repeat(40)));
        assert_eq!(bandwidth("10M", false), None);
        assert_eq!(read(json!({"nodeName": "n"}), "Running").unwrap().assigned.egress_bandwidth, None);
    }

    #[test]
    fn bound_pods_count_until_they_finish() {
        assert_eq!(read(json!({}), "Pending"), None);
        for phase in ["Pending", "Running", "Unknown"] {
            assert_eq!(read(json!({"nodeName": "n"}), phase).unwrap().node, "n");
        }
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(read(json!({"nodeName": "n"}), phase), None);
        }
    }

    #[test]
    fn dns_and_host_network() {
        let dns = json!({"nameservers": ["1.1.1.1"], "searches": ["corp.example"]});
        let spec = json!({"nodeName": "n", "hostNetwork": true, "dnsPolicy": "None", "dnsConfig": dns});
        let assigned = read(spec, "Running").unwrap().assigned;
        assert!(assigned.host_network);
        let expected = PodDns {
            policy: "None".into(),
            nameservers: vec!["1.1.1.1".into()],
            searches: vec!["corp.example".into()],
        };
        assert_eq!(assigned.dns, expected);
    }

    #[test]
    fn containers_of_all_kinds() {
        let named = |name: &str| json!([{"name": name, "image": "x"}]);
        let spec = json!({
            "nodeName": "n", "containers": named("app"), "initContainers": named("init"),
            "ephemeralContainers": named("debug"),
        });
        assert_eq!(read(spec, "Running").unwrap().assigned.containers, ["init", "app", "debug"]);
    }

    #[test]
    fn nobody_says_by_an_annotation_that_a_pod_is_another() {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "a", "uid": "own",
                         "annotations": {"kubernetes.io/config.mirror": "0f3a2b1c-1111-2222-3333-444455556666"}},
            "spec": {"nodeName": "n"},
        });
        assert_eq!(pod(serde_json::from_value(object).unwrap(), true).unwrap().assigned.uid, "own");
    }
}
