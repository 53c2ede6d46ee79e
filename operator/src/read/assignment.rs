//! EggAssignments.

use std::sync::Arc;

use kube::api::DynamicObject;
use l7egg_crds::{EggAssignmentSpec, EggAssignmentStatus, NODE_LABEL, node_label_value};
use serde::Deserialize;

use super::resource_version;
use crate::index::{Assignment, ObjectKey, Observed};

/// An EggAssignment for the index; nothing if it has no name.
pub fn observed(object: &DynamicObject) -> Option<Observed> {
    let meta = &object.metadata;
    let assignment = EggAssignmentSpec::deserialize(&object.data["spec"]).ok().map(|spec| Assignment {
        node: spec.node,
        egg: spec.egg,
        policy: Arc::new(spec.policy),
        shares: spec.shares,
        host: spec.host,
        pods: spec.pods,
    });
    let labelled = assignment.as_ref().is_some_and(|assignment| {
        let label = meta.labels.as_ref().and_then(|labels| labels.get(NODE_LABEL));
        let owned = meta.owner_references.iter().flatten().any(|owner| owner.uid == assignment.egg.uid);
        label.is_some_and(|label| *label == node_label_value(&assignment.node)) && owned
    });
    Some(Observed {
        key: ObjectKey::new(meta.namespace.clone()?, meta.name.clone()?),
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or(0),
        resource_version: resource_version(meta),
        assignment,
        labelled,
        status: EggAssignmentStatus::deserialize(&object.data["status"]).unwrap_or_default(),
    })
}
