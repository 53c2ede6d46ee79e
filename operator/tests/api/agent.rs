//! The node agents, played.

use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use l7egg_crds::{EggAssignment, PodReport, PodState};
use serde_json::json;

/// Reports all pods of the assignment to be in this state, about its generation as it was read.
pub async fn report(
    api: &Api<EggAssignment>,
    assignment: &EggAssignment,
    state: PodState,
    words: (&str, &str),
) {
    let pods: Vec<_> = assignment
        .spec
        .pods
        .iter()
        .map(|pod| PodReport {
            uid: pod.uid.clone(),
            state,
            reason: words.0.to_owned(),
            message: words.1.to_owned(),
            egress_limit: None,
        })
        .collect();
    let status = json!({"observedGeneration": assignment.metadata.generation, "pods": pods});
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(&assignment.name_any(), &PatchParams::default(), &patch)
        .await
        .expect("the report is stored");
}

/// Reports all pods of the assignment to be enforced.
pub async fn enforce(api: &Api<EggAssignment>, assignment: &EggAssignment) {
    report(api, assignment, PodState::Enforced, ("", "")).await;
}
