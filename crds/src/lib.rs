//! The API of l7egg: the objects users write ([`Egg`], [`ClusterEgg`]) and the one the operator writes for
//! the node agents ([`EggAssignment`]). Types, schemas, CEL rules and which pods are selected: no I/O, and no
//! other meaning beyond what a schema can say. What a policy means is in `l7egg-policy`.

mod assignment;
mod dns;
mod duration;
mod egg;
mod egress;
mod fields;
mod manifests;
mod selection;
mod shaping;
mod status;
mod status_patch;

pub use assignment::{
    AssignedHost, AssignedPod, EggAssignment, EggAssignmentSpec, EggAssignmentStatus, EggKind, EggReference,
    EgressLimit, HostReport, PodDns, PodReport, PodState, RateShare, node_label_value,
};
pub use dns::{Dns, RefusalCode};
pub use egg::{ClusterEgg, ClusterEggSpec, Egg, EggSpec, Mode, PolicySpec};
pub use egress::{Action, Destination, EgressRule, Port, Protocol};
pub use fields::{UnknownField, unknown_fields, unknown_in_assignment, unknown_in_spec};
pub use kube::core::Duration;
pub use manifests::manifests;
pub use selection::{Labels, Namespaces, Selection, selector_at};
pub use shaping::{Shaping, ShapingLimit, ShapingScope};
pub use status::{Condition, ConditionStatus, EggStatus, PodCounts};
pub use status_patch::status_patch;

/// API group of every l7egg object.
pub const GROUP: &str = "l7egg.dev";
/// Label on an [`EggAssignment`] that names the node it is for; agents watch by it. See [`node_label_value`].
pub const NODE_LABEL: &str = "l7egg.dev/node";
/// Annotation of a pod that limits what it sends, in bits per second: Kubernetes' own, of its CNI plugins.
pub const EGRESS_BANDWIDTH_ANNOTATION: &str = "kubernetes.io/egress-bandwidth";
/// Namespace that the product runs in and that holds the assignments of [`ClusterEgg`]s.
pub const SYSTEM_NAMESPACE: &str = "l7egg-system";
/// How long agents hold a new pod that an Egg selects, unless told otherwise, until the operator has assigned it.
pub const HOLD_FOR: std::time::Duration = std::time::Duration::from_secs(10);
/// Condition type: the operator has read the Egg and can act on it.
pub const CONDITION_ACCEPTED: &str = "Accepted";
/// Condition type: every selected pod is enforced on its node.
pub const CONDITION_PROGRAMMED: &str = "Programmed";
/// Reason of a pod's report, and then of the condition `Programmed`, where the pod is enforced, but something on its node is
/// full, so that something new is turned away.
pub const REASON_LIMIT_REACHED: &str = "LimitReached";

#[cfg(test)]
mod tests;
