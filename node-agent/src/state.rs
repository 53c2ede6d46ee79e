//! What the agent tells people about itself: `/state` of the admin endpoint, and `l7egg-node-agent status`.

use std::collections::BTreeMap;

use l7egg_crds::PodState;
use l7egg_policy::CompiledPolicy;
use serde::{Deserialize, Serialize};

use crate::{
    datapath::{Digest, EnforcedContainer, EnforcedPod},
    division::Division,
    hold::{HELD, LET_GO},
    inventory::Inventory,
    limits::Limit,
    report::Findings,
};

/// Everything, after one pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentState {
    /// Whether a full list of assignments has come from the API server.
    pub synced: bool,
    /// What is missing until it is known what is to become of new pods; nothing in an agent that is ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub awaited: Vec<String>,
    /// The kinds of objects that the API server cannot be asked for now, whatever it has told of them before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unwatched: Vec<Unwatched>,
    /// Whether the kubelet's cgroups were found.
    pub cgroups_found: bool,
    /// The assignments of this node.
    pub assignments: Vec<AssignmentState>,
    /// The pods that assignments name, those that are held or were let go, and those that something is still in force
    /// for; in order of their names.
    pub pods: Vec<PodStatus>,
    /// The policies that should be in force.
    pub policies: Vec<PolicyState>,
    /// The node's limits that are reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
}

/// A kind of objects that cannot be watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unwatched {
    /// As in the URLs of the API server: `eggassignments`.
    pub kind: String,
    /// Since when (RFC 3339).
    pub since: String,
    /// What its watch said last.
    pub error: String,
}

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentState {
    /// Namespace and name.
    pub name: String,
    /// Its Egg.
    pub egg: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// How many pods it names.
    pub pods: usize,
    /// Why it cannot be read, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Uid of the pod.
    pub uid: String,
    /// Namespace and name; empty for a pod that no assignment names.
    pub name: String,
    /// The Eggs that select it.
    pub eggs: Vec<String>,
    /// Its DNS servers that are believed.
    pub resolvers: Vec<String>,
    /// Directory of its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Id by which the kernel knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<u32>,
    /// Digest of the policy in force; of a divided pod, those of its containers: `app 0123456789ab, sidecar free`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The strictest bandwidth limit that holds: `5M of Egg shop/checkout`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub egress_limit: String,
    /// Whether that is what its Eggs ask for.
    pub state: PodState,
    /// Why not, in one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One compiled policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyState {
    /// Its digest.
    pub digest: String,
    /// How many pods it is for.
    pub pods: usize,
    /// How many names it has.
    pub names: usize,
    /// How many networks.
    pub cidrs: usize,
    /// How many lists of ports, of at most 64.
    pub port_lists: usize,
}

/// A digest as people see it: its first 12 hexadecimal digits.
#[must_use]
pub fn short(digest: &Digest) -> String {
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What to tell after a pass.
#[must_use]
pub fn state(inventory: &Inventory, findings: Findings<'_>) -> AgentState {
    let mut policies: BTreeMap<String, PolicyState> = BTreeMap::new();
    for pod in findings.desired.pods.values() {
        let own = pod.policy.iter().filter(|_| pod.division.is_none());
        for policy in own.chain(pod.division.iter().flat_map(Division::policies)) {
            policies.entry(short(&policy.digest)).or_insert_with(|| policy_state(policy)).pods += 1;
        }
    }
    AgentState {
        synced: inventory.is_complete(),
        awaited: Vec::new(),
        unwatched: Vec::new(),
        cgroups_found: findings.cgroups.complete,
        assignments: assignments(inventory),
        pods: pods(findings),
        policies: policies.into_values().collect(),
        limits: findings.limits.to_vec(),
    }
}

fn assignments(inventory: &Inventory) -> Vec<AssignmentState> {
    let one = |entry: &crate::inventory::Entry| AssignmentState {
        name: entry.object.key.to_string(),
        egg: entry.good.as_ref().map(|good| crate::assignment::egg_name(&good.egg)).unwrap_or_default(),
        generation: entry.object.generation,
        pods: entry.object.pods().len(),
        unreadable: entry.object.content.as_ref().err().map(|unreadable| unreadable.message.clone()),
    };
    inventory.entries().map(one).collect()
}

fn pods(findings: Findings<'_>) -> Vec<PodStatus> {
    let cgroup = |uid: &str| findings.cgroups.pods.get(uid).map(|cgroup| cgroup.path.display().to_string());
    let selected = findings.desired.pods.iter().map(|(uid, pod)| {
        let (state, reason, message) = findings.state(pod, uid, None);
        PodStatus {
            uid: uid.clone(),
            name: crate::assignment::subject_name(&pod.namespace, &pod.name),
            eggs: pod.eggs.clone(),
            resolvers: pod.explainer.believed().iter().map(ToString::to_string).collect(),
            cgroup: cgroup(uid),
            subject: findings.in_force(uid).map(|pod| pod.subject),
            policy: findings.in_force(uid).filter(|pod| !pod.held).map(in_force),
            egress_limit: findings.limit(&pod.limits, uid).map(|limit| limit.to_string()).unwrap_or_default(),
            state,
            reason,
            message,
        }
    });
    let bare = |uid: &str, state, reason: &str, message: &str| PodStatus {
        uid: uid.to_owned(),
        name: String::new(),
        eggs: Vec::new(),
        resolvers: Vec::new(),
        cgroup: cgroup(uid),
        subject: findings.enforced.get(uid).map(|pod| pod.subject),
        policy: None,
        egress_limit: String::new(),
        state,
        reason: reason.into(),
        message: message.into(),
    };
    let is_assigned = |uid: &str| findings.desired.pods.contains_key(uid);
    let named = |pod: &Option<(String, String)>| {
        pod.as_ref().map(|(namespace, name)| format!("{namespace}/{name}")).unwrap_or_default()
    };
    let held = findings.held.iter().filter(|(uid, _)| !is_assigned(uid));
    let held = held.map(|(uid, pod)| PodStatus {
        name: named(&pod.pod),
        ..bare(uid, PodState::Pending, HELD, &pod.message)
    });
    let let_go = findings.let_go.iter().filter(|(uid, _)| !is_assigned(uid));
    let let_go = let_go.map(|(uid, pod)| PodStatus {
        name: named(&pod.pod),
        ..bare(uid, PodState::Failed, LET_GO, &pod.message)
    });
    let annotated = findings.desired.annotated.iter().flatten().map(|(uid, pod)| {
        let (state, reason, message) = findings.limit_state(&pod.limits, uid);
        PodStatus {
            name: crate::assignment::subject_name(&pod.namespace, &pod.name),
            egress_limit: findings.limit(&pod.limits, uid).map(|limit| limit.to_string()).unwrap_or_default(),
            ..bare(uid, state, &reason, &message)
        }
    });
    let left = findings.enforced.values().filter(|pod| !pod.held && !is_assigned(&pod.uid));
    let left = left.map(|pod| PodStatus {
        policy: Some(in_force(pod)),
        ..bare(
            &pod.uid,
            PodState::Enforced,
            "NotAssigned",
            "in force since before; kept until it is certain that no Egg selects the pod",
        )
    });
    let mut pods: Vec<PodStatus> = selected.chain(held).chain(let_go).chain(annotated).chain(left).collect();
    pods.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
    pods
}

fn in_force(pod: &EnforcedPod) -> String {
    let Some(containers) = &pod.containers else { return short(&pod.policy) };
    let one =
        |it: &EnforcedContainer| format!("{} {}", it.name, it.policy.as_ref().map_or("free".into(), short));
    containers.values().map(one).collect::<Vec<_>>().join(", ")
}

fn policy_state(policy: &CompiledPolicy) -> PolicyState {
    PolicyState {
        digest: short(&policy.digest),
        pods: 0,
        names: policy.names.len(),
        cidrs: policy.cidrs.len(),
        port_lists: policy.port_groups.len(),
    }
}
