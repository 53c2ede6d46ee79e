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
    store(api, assignment, all(assignment, state, words)).await;
}

/// The same of all pods of the assignment.
fn all(assignment: &EggAssignment, state: PodState, words: (&str, &str)) -> Vec<PodReport> {
    let report = |uid: &String| PodReport {
        uid: uid.clone(),
        state,
        reason: words.0.to_owned(),
        message: words.1.to_owned(),
        egress_limit: None,
    };
    assignment.spec.pods.iter().map(|pod| report(&pod.uid)).collect()
}

/// Reports this of the assignment's pods, about its generation as it was read.
pub async fn store(api: &Api<EggAssignment>, assignment: &EggAssignment, pods: Vec<PodReport>) {
    store_status(api, assignment, EggAssignmentStatus { pods, ..EggAssignmentStatus::default() }).await;
}

/// Reports all pods of the assignment to be enforced, since this boot of the node.
pub async fn enforce_since(api: &Api<EggAssignment>, assignment: &EggAssignment, boot_id: &str) {
    let pods = all(assignment, PodState::Enforced, ("", ""));
    let boot_id = Some(boot_id.to_owned());
    store_status(api, assignment, EggAssignmentStatus { pods, boot_id, ..EggAssignmentStatus::default() })
        .await;
}

async fn store_status(api: &Api<EggAssignment>, assignment: &EggAssignment, status: EggAssignmentStatus) {
    let observed_generation = assignment.metadata.generation;
    let status = EggAssignmentStatus { observed_generation, ..status };
    let patch = status_patch(assignment.metadata.uid.as_deref(), &status).expect("a status is JSON");
    api.patch_status(&assignment.name_any(), &PatchParams::default(), &patch)
        .await
        .expect("the report is stored");
}

/// Reports all pods of the assignment to be enforced.
pub async fn enforce(api: &Api<EggAssignment>, assignment: &EggAssignment) {
    report(api, assignment, PodState::Enforced, ("", "")).await;
}
