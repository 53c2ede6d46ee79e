//! What is to be enforced: Eggs × units, by the operator's index, as EggAssignments for this host.

use std::collections::BTreeSet;

use kube::api::DynamicObject;
use l7egg_crds::{AssignedHost, AssignedPod, Labels, PodDns};
use l7egg_operator::{
    index::{Egg, Index, Node, Pod},
    write,
};

use crate::units::Unit;

/// Uid of every EggAssignment: they are of no API server.
const UID: &str = "host";

/// The host, as nodeSelectors see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
}

/// What these Eggs say of these units, and of the host: an assignment for each Egg that selects anything here.
///
/// # Errors
/// An assignment that is no object, which would be a bug.
pub fn wanted<'a>(
    eggs: impl Iterator<Item = &'a Egg>,
    units: &[Unit],
    host: &Host,
) -> Result<Vec<DynamicObject>, serde_json::Error> {
    let mut index = Index::default();
    index.apply_node(Node {
        name: host.name.clone(),
        labels: host.labels.clone(),
        host: AssignedHost::default(),
        boot_id: None,
    });
    for namespace in units.iter().map(|unit| &unit.namespace).collect::<BTreeSet<_>>() {
        let name = [("kubernetes.io/metadata.name".to_owned(), namespace.clone())];
        index.apply_namespace(namespace, name.into());
    }
    units.iter().for_each(|unit| index.apply_pod(pod(unit, &host.name)));
    eggs.for_each(|egg| index.apply_egg(egg.clone()));
    index.settle();
    let mut wanted = Vec::new();
    for key in index.take_changes().desired.into_keys() {
        let Some(assignment) = index.desired(&key) else { continue };
        let mut object: DynamicObject = serde_json::from_value(write::object(&key, &assignment))?;
        object.metadata.uid = Some(UID.to_owned());
        wanted.push(object);
    }
    Ok(wanted)
}

/// A unit in a pod's place: it asks the host's resolvers.
fn pod(unit: &Unit, node: &str) -> Pod {
    Pod {
        labels: unit.labels.clone(),
        node: node.to_owned(),
        assigned: AssignedPod {
            namespace: unit.namespace.clone(),
            name: unit.name.clone(),
            uid: unit.uid.clone(),
            host_network: unit.host_network,
            dns: PodDns { policy: "Default".to_owned(), ..PodDns::default() },
            ..AssignedPod::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use l7egg_node_agent::cgroup::PodCgroup;
    use l7egg_operator::read;
    use serde_json::json;

    use super::*;
    use crate::units::UNIT_LABEL;

    fn unit(name: &str) -> Unit {
        Unit {
            namespace: "system".into(),
            name: name.into(),
            uid: format!("unit-{name}"),
            labels: [(UNIT_LABEL.to_owned(), name.to_owned())].into(),
            host_network: true,
            cgroup: PodCgroup { path: name.into(), id: 1 },
        }
    }

    fn object(kind: &str, name: &str, spec: serde_json::Value) -> DynamicObject {
        let metadata = json!({"name": name, "namespace": (kind == "Egg").then_some("system")});
        serde_json::from_value(
            json!({"apiVersion": "l7egg.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn eggs_are_for_units_and_cluster_eggs_for_the_host() {
        let egress = json!([{"to": [{"cidr": "192.0.2.0/24"}]}]);
        let web = json!({"podSelector": {"matchLabels": {UNIT_LABEL: "web.service"}}, "egress": egress});
        let web = read::egg(&object("Egg", "web", web)).unwrap();
        let edge = json!({"nodeSelector": {"matchLabels": {"role": "edge"}}, "egress": egress});
        let edge = read::cluster_egg(&object("ClusterEgg", "edge", edge)).unwrap();
        let host =
            |role: &str| Host { name: "h".into(), labels: [("role".to_owned(), role.to_owned())].into() };
        let units = [unit("web.service"), unit("other.service")];

        let both = wanted([&web, &edge].into_iter(), &units, &host("edge")).unwrap();
        let of_host =
            |wanted: &[DynamicObject]| wanted.iter().filter(|it| it.data["spec"]["host"].is_object()).count();
        assert_eq!((both.len(), of_host(&both)), (2, 1));
        let uids = |it: &DynamicObject| it.data["spec"]["pods"][0]["uid"].as_str().map(str::to_owned);
        assert_eq!(both.iter().filter_map(uids).collect::<Vec<_>>(), ["unit-web.service"]);
        let one = wanted([&web, &edge].into_iter(), &units, &host("core")).unwrap();
        assert_eq!((one.len(), of_host(&one)), (1, 0));
        assert!(wanted([&web].into_iter(), &units[1..], &host("edge")).unwrap().is_empty());
    }
}
