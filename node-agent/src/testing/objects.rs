//! Assignments and cgroups in a line each.

use std::path::PathBuf;

use kube::{api::DynamicObject, runtime::watcher::Event};
use l7egg_crds::{AssignedPod, SYSTEM_NAMESPACE};
use l7egg_policy::ResolvConf;
use serde_json::{Value, json};

use crate::{
    cgroup::{PodCgroup, PodCgroups},
    datapath::{Digest, EnforcedPod},
    desired::{Desired, desired},
    inventory::Inventory,
    policies::PolicyCache,
    resolvers::{NodeResolvers, resolv_conf},
};

/// An assignment under construction.
#[derive(Clone, Debug)]
pub struct AssignmentBuilder(Value);

/// The assignment of Egg `shop/<name>` without rules and pods.
pub fn assignment(name: &str) -> AssignmentBuilder {
    AssignmentBuilder(json!({
        "apiVersion": "l7egg.dev/v1alpha1", "kind": "EggAssignment",
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "generation": 1},
        "spec": {
            "node": "node1",
            "egg": {"kind": "Egg", "namespace": "shop", "name": name, "uid": format!("egg-{name}"), "generation": 1},
            "policy": {"mode": "Enforce", "egress": []},
            "pods": [],
        },
    }))
}

impl AssignmentBuilder {
    /// Another rule: a CIDR, every port.
    pub fn allow(self, cidr: &str) -> Self {
        self.push("egress", json!({"to": [{"cidr": cidr}]}))
    }

    /// Another rule: a name, every port.
    pub fn allow_name(self, name: &str) -> Self {
        self.push("egress", json!({"to": [{"domainNames": [name]}]}))
    }

    /// Another rule: a CIDR, one TCP port.
    pub fn allow_port(self, cidr: &str, port: i32) -> Self {
        self.push("egress", json!({"to": [{"cidr": cidr}], "ports": [{"port": port}]}))
    }

    /// Another rule, which denies a CIDR.
    pub fn deny(self, cidr: &str) -> Self {
        self.push("egress", json!({"action": "Deny", "to": [{"cidr": cidr}]}))
    }

    /// How it treats DNS.
    pub fn dns(mut self, dns: Value) -> Self {
        self.0["spec"]["policy"]["dns"] = dns;
        self
    }

    /// Made of a ClusterEgg.
    pub fn of_cluster(mut self) -> Self {
        self.0["spec"]["egg"]["kind"] = json!("ClusterEgg");
        self.0["metadata"]["namespace"] = json!(SYSTEM_NAMESPACE);
        self
    }

    /// Another pod, whose name is its uid.
    pub fn pod(self, uid: &str) -> Self {
        self.push(
            "pods",
            json!({"namespace": "shop", "name": uid, "uid": uid, "dns": {"policy": "ClusterFirst"}}),
        )
    }

    /// Another pod, with these containers.
    pub fn pod_with(self, uid: &str, containers: &[&str]) -> Self {
        self.push("pods", json!({"namespace": "shop", "name": uid, "uid": uid, "containers": containers}))
    }

    /// Another pod that asks a server of its own.
    pub fn pod_asking(self, uid: &str, server: &str) -> Self {
        let dns = json!({"policy": "None", "nameservers": [server]});
        self.push("pods", json!({"namespace": "shop", "name": uid, "uid": uid, "dns": dns}))
    }

    /// Another pod with a bandwidth limit of its own.
    pub fn annotated_pod(self, uid: &str, rate: &str) -> Self {
        self.push("pods", json!({"namespace": "shop", "name": uid, "uid": uid, "egressBandwidth": rate}))
    }

    /// Another pod in its node's network.
    pub fn host_network_pod(self, uid: &str) -> Self {
        self.push("pods", json!({"namespace": "shop", "name": uid, "uid": uid, "hostNetwork": true}))
    }

    /// For these containers.
    pub fn containers(mut self, names: &[&str]) -> Self {
        self.0["spec"]["policy"]["containers"] = json!(names);
        self
    }

    /// For the node itself.
    pub fn host(self) -> Self {
        let mut host = self.of_cluster();
        host.0["spec"]["host"] = json!({"podCIDRs": ["10.88.1.0/24"]});
        host
    }

    /// Denies nothing.
    pub fn audit(mut self) -> Self {
        self.0["spec"]["policy"]["mode"] = json!("Audit");
        self
    }

    /// A bandwidth limit.
    pub fn shape(mut self, rate: &str, scope: &str) -> Self {
        self.0["spec"]["policy"]["shaping"] = json!({"egress": {"rate": rate, "scope": scope}});
        self
    }

    /// The node's part of it.
    pub fn share(mut self, namespace: Option<&str>, bits_per_second: i64) -> Self {
        if self.0["spec"]["shares"].is_null() {
            self.0["spec"]["shares"] = json!([]);
        }
        self.push("shares", json!({"namespace": namespace, "bitsPerSecond": bits_per_second}))
    }

    /// The object's uid.
    pub fn uid(mut self, uid: &str) -> Self {
        self.0["metadata"]["uid"] = json!(uid);
        self
    }

    /// The object's generation.
    pub fn generation(mut self, generation: i64) -> Self {
        self.0["metadata"]["generation"] = json!(generation);
        self
    }

    /// A policy that no agent can read.
    pub fn malformed(mut self) -> Self {
        self.0["spec"]["policy"] = json!({"egress": "everything"});
        self
    }

    /// Nothing that any agent can read.
    pub fn without_readable_pods(self) -> Self {
        let mut bad = self.malformed();
        bad.0["spec"]["pods"] = json!("all");
        bad
    }

    /// The object.
    pub fn object(&self) -> DynamicObject {
        serde_json::from_value(self.0.clone()).unwrap()
    }

    fn push(mut self, list: &str, item: Value) -> Self {
        let list =
            if list == "egress" { &mut self.0["spec"]["policy"][list] } else { &mut self.0["spec"][list] };
        list.as_array_mut().unwrap().push(item);
        self
    }
}

/// A complete inventory of these.
pub fn inventory_of(assignments: &[AssignmentBuilder]) -> Inventory {
    let mut inventory = Inventory::default();
    inventory.apply(Event::Init);
    for assignment in assignments {
        inventory.apply(Event::InitApply(assignment.object()));
    }
    inventory.apply(Event::InitDone);
    inventory
}

/// What these ask for.
pub fn desired_of(assignments: &[AssignmentBuilder]) -> Desired {
    desired(&inventory_of(assignments), &told, &|_, _| false, &mut PolicyCache::default())
}

/// What the resolver of a pod is told on such a node.
pub fn told(pod: &AssignedPod) -> ResolvConf {
    resolv_conf(pod, None, &node_resolvers())
}

/// A node with one cluster DNS address.
pub fn node_resolvers() -> NodeResolvers {
    NodeResolvers { cluster: vec!["10.96.0.10".parse().unwrap()], ..NodeResolvers::default() }
}

/// A complete view of the cgroups of these pods.
pub fn cgroups_of(uids: &[&str]) -> PodCgroups {
    let one = |uid: &&str| {
        // An id of its own for each uid, the same in every view.
        let id = uid.bytes().fold(5381, |id: u64, byte| id.wrapping_mul(33) ^ u64::from(byte));
        ((*uid).to_owned(), PodCgroup { path: PathBuf::from(format!("/kubepods/pod{uid}")), id })
    };
    PodCgroups {
        pods: uids.iter().map(one).collect(),
        complete: true,
        parents: vec![PathBuf::from("/kubepods")],
        in_use: vec![PathBuf::from("/kubepods")],
        ..PodCgroups::default()
    }
}

/// A pod that something is in force for.
pub fn enforced_pod(uid: &str, cgroup_id: u64, policy: Digest) -> EnforcedPod {
    EnforcedPod { uid: uid.to_owned(), cgroup_id, policy, held: false, subject: 1, containers: None }
}
