//! What the index is told: plain data, already read from API objects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use l7egg_crds::{
    AssignedHost, AssignedPod, EggAssignmentStatus, EggReference, EggStatus, PolicySpec, RateShare,
};

use super::{EggKey, Labels, ObjectKey, Selection};

/// A pod that is bound to a node and not yet finished. Others are not told to the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Labels of the pod.
    pub labels: Labels,
    /// Node that it is bound to.
    pub node: String,
    /// What its node's agent has to know.
    pub assigned: AssignedPod,
}

impl Pod {
    /// Namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.assigned.namespace, &self.assigned.name)
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Labels of the node.
    pub labels: Labels,
    /// What its agent has to know where the node itself is meant.
    pub host: AssignedHost,
    /// The boot that its kubelet tells of, if it has told.
    pub boot_id: Option<String>,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedNamespace {
    /// Its name.
    pub name: String,
    /// Labels of the namespace.
    pub labels: Labels,
    /// It is being deleted: the API server lets nothing new into it.
    pub ends: bool,
}

/// An Egg or ClusterEgg, read and judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Egg {
    /// Which one.
    pub key: EggKey,
    /// Uid of the object: an Egg of the same name with another uid is another Egg.
    pub uid: String,
    /// Generation of the object.
    pub generation: i64,
    /// Resource version as a number, 0 if it is none: older news of an object are not to undo newer ones.
    pub resource_version: u64,
    /// What it asks for, or why it was not accepted.
    pub spec: Result<Accepted, Rejection>,
    /// Its status at present.
    pub status: EggStatus,
}

/// What an accepted Egg asks for.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The pods or nodes.
    pub selection: Selection,
    /// Their policy. Shared, because every node that runs one of these pods has it.
    pub policy: Arc<PolicySpec>,
}

impl PartialEq for Accepted {
    fn eq(&self, other: &Self) -> bool {
        self.selection == other.selection && same_policy(&self.policy, &other.policy)
    }
}

/// Why an Egg was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// One CamelCase word, the reason of the condition.
    pub reason: &'static str,
    /// A sentence that names what is wrong and what to write.
    pub message: String,
    /// The pods or nodes it is for, if at least that could be read.
    pub selection: Option<Selection>,
}

/// An EggAssignment as the operator means it.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Node that it is for.
    pub node: String,
    /// Egg that it comes from.
    pub egg: EggReference,
    /// The Egg's policy.
    pub policy: Arc<PolicySpec>,
    /// The node's parts of a rate that the Egg's pods share.
    pub shares: Vec<RateShare>,
    /// The node itself, if that is what the Egg selects.
    pub host: Option<AssignedHost>,
    /// The node's pods that the Egg selects, in order of namespace and name. Compared without their order.
    pub pods: Vec<AssignedPod>,
}

impl Assignment {
    /// Whether the two are the same but for the node's parts of a shared rate.
    pub fn is_but_for_shares(&self, other: &Self) -> bool {
        self.node == other.node
            && self.egg == other.egg
            && self.host == other.host
            && same_pods(&self.pods, &other.pods)
            && same_policy(&self.policy, &other.policy)
    }

    /// Whether the parts of a shared rate are of the same pods, and each within a sixteenth of the other.
    pub fn has_nearly_the_shares(&self, other: &Self) -> bool {
        let is_near = |(one, other): (&RateShare, &RateShare)| {
            let (one_rate, other_rate) = (one.bits_per_second, other.bits_per_second);
            one.namespace == other.namespace && one_rate.abs_diff(other_rate) <= one_rate.unsigned_abs() / 16
        };
        self.shares.len() == other.shares.len() && self.shares.iter().zip(&other.shares).all(is_near)
    }
}

impl PartialEq for Assignment {
    fn eq(&self, other: &Self) -> bool {
        self.shares == other.shares && self.is_but_for_shares(other)
    }
}

/// An EggAssignment as the API server has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Namespace and name of the EggAssignment.
    pub key: ObjectKey,
    /// Uid of the EggAssignment.
    pub uid: String,
    /// Generation of the EggAssignment.
    pub generation: i64,
    /// Resource version as a number, 0 if it is none.
    pub resource_version: u64,
    /// Its spec; nothing if that cannot be read.
    pub assignment: Option<Assignment>,
    /// Label and owner are those that belong to this spec.
    pub labelled: bool,
    /// What the agent says.
    pub status: EggAssignmentStatus,
}

impl Observed {
    /// The Egg that it comes from, as far as it can be read.
    pub fn egg(&self) -> Option<EggKey> {
        let egg = &self.assignment.as_ref()?.egg;
        Some(EggKey { kind: egg.kind, namespace: egg.namespace.clone(), name: egg.name.clone() })
    }
}

/// Their order says nothing: before Kubernetes 1.24 what was there first stays first, wherever it is written.
fn same_pods(a: &[AssignedPod], b: &[AssignedPod]) -> bool {
    if a == b || a.len() != b.len() {
        return a == b;
    }
    let others: HashMap<&str, &AssignedPod> = b.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
    let uids: HashSet<&str> = a.iter().map(|pod| pod.uid.as_str()).collect();
    uids.len() == a.len() && a.iter().all(|pod| others.get(pod.uid.as_str()) == Some(&pod))
}

fn same_policy(a: &Arc<PolicySpec>, b: &Arc<PolicySpec>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
