//! Kubernetes events: a failure appears where people look first, in `kubectl describe pod`.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use l7egg_crds::{EggAssignmentStatus, EggKind, EggReference};

use crate::{
    causes::causes,
    report::Report,
    reporter::{FIELD_MANAGER, new_failures},
};

/// The API server takes notes of at most 1 kB.
const NOTE_MAX: usize = 1000;

/// Publishes events in the name of this node's agent.
pub struct Notices {
    recorder: Recorder,
}

impl Notices {
    /// Events from the agent of this node.
    #[must_use]
    pub fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: Some(node.into()) };
        Notices { recorder: Recorder::new(client, reporter) }
    }

    /// One event for each pod that failed anew since the status was `before`. One that cannot be published is
    /// only logged: the report says the same.
    pub async fn publish(&mut self, report: &Report, before: Option<&EggAssignmentStatus>) {
        for failure in new_failures(before, &report.status) {
            let Some(pod) = report.pods.iter().find(|pod| pod.uid == failure.uid) else { continue };
            let event = Event {
                type_: EventType::Warning,
                reason: failure.reason.clone(),
                note: Some(cut(&failure.message)),
                action: "Enforce".into(),
                secondary: report.egg.as_ref().map(egg_reference),
            };
            let pod = ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                namespace: Some(pod.namespace.clone()),
                name: Some(pod.name.clone()),
                uid: Some(pod.uid.clone()),
                ..ObjectReference::default()
            };
            if let Err(error) = self.recorder.publish(&event, &pod).await {
                tracing::warn!(
                    pod = pod.name,
                    error = causes(&error),
                    "event cannot be published; the report of the assignment says the same"
                );
            }
        }
    }
}

fn egg_reference(egg: &EggReference) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/v1alpha1", l7egg_crds::GROUP)),
        kind: Some(match egg.kind {
            EggKind::Egg => "Egg".into(),
            EggKind::ClusterEgg => "ClusterEgg".into(),
        }),
        namespace: egg.namespace.clone(),
        name: Some(egg.name.clone()),
        uid: Some(egg.uid.clone()),
        ..ObjectReference::default()
    }
}

fn cut(message: &str) -> String {
    message
        .chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= NOTE_MAX).then_some(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"é".repeat(900)).len(), NOTE_MAX);
    }
}
