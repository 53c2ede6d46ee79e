//! What a pass shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    assignment::AssignmentKey, datapath::EnforcedPod, desired::Desired, explain::Explainer,
    flow_log::Explainers, notice::Notice, report::Report, state::AgentState,
};

/// What is known after a pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// For people.
    pub state: AgentState,
    /// By the id that the kernel knows them by, to explain its events.
    pub pods: Explainers,
    /// For the API server.
    pub reports: BTreeMap<AssignmentKey, Report>,
    /// What is to be told as events of the node, and of pods that no assignment names.
    pub notices: BTreeSet<Notice>,
}

/// Who can explain what the kernel reports, by the id that it knows pods and containers by.
pub(super) fn explainers(desired: &Desired, enforced: &BTreeMap<String, EnforcedPod>) -> Explainers {
    let mut explainers = Explainers::new();
    for now in enforced.values() {
        let Some(pod) = desired.pods.get(&now.uid) else { continue };
        explainers.insert(now.subject, Arc::clone(&pod.explainer));
        for container in now.containers.iter().flat_map(BTreeMap::values).filter(|it| it.subject != 0) {
            let of_container =
                Explainer { container: Some(container.name.clone()), ..(*pod.explainer).clone() };
            explainers.insert(container.subject, Arc::new(of_container));
        }
    }
    explainers
}
