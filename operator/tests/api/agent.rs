//! The node agents, played.

use kube::ResourceExt;
use kube::api::{Api, PatchParams};
use l7egg_crds::{EggAssignment, EggAssignmentStatus, PodReport, PodState, status_patch};

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
    store(api, assignment, pods).await;
}

/// Reports this of the assignment's pods, about its generation as it was read.
pub async fn store(api: &Api<EggAssignment>, assignment: &EggAssignment, pods: Vec<PodReport>) {
    let status =
        EggAssignmentStatus { observed_generation: assignment.metadata.generation, pods, host: None };
    let patch = status_patch(assignment.metadata.uid.as_deref(), &status).expect("a status is JSON");
    api.patch_status(&assignment.name_any(), &PatchParams::default(), &patch)
        .await
        .expect("the report is stored");
}

/// Reports all pods of the assignment to be enforced.
pub async fn enforce(api: &Api<EggAssignment>, assignment: &EggAssignment) {
    report(api, assignment, PodState::Enforced, ("", "")).await;
}
