//! Kubernetes events: a failure appears where people look first, in `kubectl describe pod`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use l7egg_crds::{EggKind, EggReference, PodReport, PodState};

use crate::{
    causes::causes,
    client::{answered, has_no_time},
    cut::cut,
    datapath::MAP_FULL,
    hold::{HELD, LET_GO},
    limits::LIMIT_REACHED,
    report::{Findings, Report},
    reporter::FIELD_MANAGER,
};

/// Reason of an event of a pod without an Egg whose annotation cannot limit it.
const NOT_LIMITED: &str = "NotLimited";
/// The API server takes notes of at most 1 kB.
const NOTE_MAX: usize = 1000;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// This node.
    Node,
    /// A pod.
    Pod {
        /// Uid of the pod.
        uid: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Something to be told by an event, once for as long as it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// What it is about.
    pub about: About,
    /// One CamelCase word.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What is to be told of pods that are held for long or were let go, of those whose annotation cannot limit them, and of the node's limits.
#[must_use]
pub fn notices(findings: Findings<'_>) -> BTreeSet<Notice> {
    let notice = |uid: &String, pod: &Option<(String, String)>, reason, message: &String| {
        let (namespace, name) = pod.clone()?;
        let about = About::Pod { uid: uid.clone(), namespace, name };
        Some(Notice { about, reason, message: message.clone() })
    };
    let held = findings.held.iter().filter(|(_, pod)| pod.long);
    let held = held.filter_map(|(uid, pod)| notice(uid, &pod.pod, HELD, &pod.message));
    let let_go = findings.let_go.iter().filter_map(|(uid, pod)| notice(uid, &pod.pod, LET_GO, &pod.message));
    let annotated = findings.desired.annotated.iter().flatten();
    let unlimited = annotated.filter_map(|(uid, pod)| {
        let (state, _, message) = findings.limit_state(&pod.limits, uid);
        let about = Some((pod.namespace.clone(), pod.name.clone()));
        (state == PodState::Failed).then(|| notice(uid, &about, NOT_LIMITED, &message))?
    });
    let limit =
        |message: &str| Notice { about: About::Node, reason: LIMIT_REACHED, message: message.to_owned() };
    let limits = findings.limits.iter().map(|reached| limit(reached.message()));
    let full = findings.failures.values().filter(|failure| failure.reason == MAP_FULL);
    let full = full.map(|failure| limit(&failure.message));
    held.chain(let_go).chain(unlimited).chain(limits).chain(full).collect()
}

/// Publishes events in the name of this node's agent.
pub struct Notices {
    recorder: Recorder,
    node: ObjectReference,
    /// Those that hold and were told.
    told: BTreeSet<Notice>,
}

impl Notices {
    /// Events from the agent of this node.
    #[must_use]
    pub fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: Some(node.into()) };
        // As kubelets write it: `kubectl describe node` looks for events by this uid. An event of what is in no namespace goes into
        // `default`, and older API servers (1.20) want to read that here, too.
        let node = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            namespace: Some("default".into()),
            name: Some(node.into()),
            uid: Some(node.into()),
            ..ObjectReference::default()
        };
        Notices { recorder: Recorder::new(client, reporter), node, told: BTreeSet::new() }
    }

    /// One event for each of these pods of a report, which failed anew. One that cannot be published is only logged: the report
    /// says the same. Whether the API server had time for it, if it was asked; where not, the rest is left out.
    pub async fn publish(&self, report: &Report, failures: Vec<&PodReport>) -> Option<bool> {
        let mut has_time = None;
        for failure in failures {
            let Some(pod) = report.pods.iter().find(|pod| pod.uid == failure.uid) else { continue };
            let event = warning(&failure.reason, &failure.message, report.egg.as_ref().map(egg_reference));
            if !self.send(&event, &pod_reference(&pod.namespace, &pod.name, &pod.uid)).await {
                return Some(false);
            }
            has_time = Some(true);
        }
        has_time
    }

    /// One event for each notice that is new. One that is refused is only logged: `status` and the agent's log say the same.
    /// Whether the API server had time for it, if it was asked; where not, the rest is told the next time.
    pub async fn tell(&mut self, notices: &BTreeSet<Notice>) -> Option<bool> {
        let mut has_time = None;
        self.told.retain(|notice| notices.contains(notice));
        for notice in notices {
            if self.told.contains(notice) {
                continue;
            }
            let about = match &notice.about {
                About::Node => self.node.clone(),
                About::Pod { uid, namespace, name } => pod_reference(namespace, name, uid),
            };
            if !self.send(&warning(notice.reason, &notice.message, None), &about).await {
                return Some(false);
            }
            has_time = Some(true);
            self.told.insert(notice.clone());
        }
        has_time
    }

    /// Whether the API server answers, and has time for more.
    async fn send(&self, event: &Event, about: &ObjectReference) -> bool {
        let Err(error) = answered(self.recorder.publish(event, about)).await else { return true };
        tracing::warn!(
            about = about.name,
            reason = event.reason,
            error = causes(&error),
            "event cannot be published; what it says is in the agent's status as well"
        );
        !has_no_time(&error)
    }
}

fn warning(reason: &str, message: &str, secondary: Option<ObjectReference>) -> Event {
    Event {
        type_: EventType::Warning,
        reason: reason.into(),
        note: Some(cut(message.to_owned(), NOTE_MAX)),
        action: "Enforce".into(),
        secondary,
    }
}

fn pod_reference(namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid: Some(uid.into()),
        ..ObjectReference::default()
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
