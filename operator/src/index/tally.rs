//! How far one Egg has come on its nodes.

use l7egg_crds::{EgressLimit, PodReport, PodState, REASON_LIMIT_REACHED};

use super::{Assignment, Observed};

/// Most troubles that are kept of one Egg: they are for a condition's message.
pub const MAX_TROUBLES: usize = 3;

/// Pods of an Egg by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pods that the Egg selects.
    pub selected: usize,
    /// Of these, enforced at the generation in force.
    pub enforced: usize,
    /// Of these, audited at that generation.
    pub audited: usize,
    /// Of these, failed.
    pub failed: usize,
    /// The first failed pods.
    pub failures: Vec<Trouble>,
    /// The first pods that are enforced or audited, and about which there is something to say.
    pub notes: Vec<Trouble>,
    /// The first pods that are neither enforced, audited nor failed.
    pub pending: Vec<Trouble>,
    /// Of those enforced or audited, those on whose node a limit is reached that concerns them.
    pub limited: usize,
    /// The first of them.
    pub limits: Vec<Trouble>,
    /// The strictest bandwidth limit that holds for any of them, and for how many of them.
    pub strictest: Option<(EgressLimit, usize)>,
}

/// A pod that is not enforced, or an assignment that could not be written, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it is about: `pod shop/checkout-1 on node1`.
    pub subject: String,
    /// The agent's or the API server's words; may be empty.
    pub message: String,
}

impl Tally {
    /// The tally of one node: a report counts only if it is about the assignment as it now is, and that is
    /// the one desired.
    pub fn of_node(desired: &Assignment, observed: Option<&Observed>, write_error: Option<&str>) -> Self {
        let mut tally = Tally { selected: desired.pods.len(), ..Tally::default() };
        let current = observed.filter(|observed| {
            observed.assignment.as_ref() == Some(desired)
                && observed.status.observed_generation == Some(observed.generation)
        });
        if let (None, Some(error)) = (current, write_error) {
            tally.pending.push(Trouble {
                subject: format!("the assignment for {}", desired.node),
                message: error.to_owned(),
            });
            return tally;
        }
        for (position, pod) in desired.pods.iter().enumerate() {
            // The agent reports in the spec's order; a search is for an agent that does not.
            let report = current.and_then(|observed| {
                let reports = &observed.status.pods;
                reports
                    .get(position)
                    .filter(|report| report.uid == pod.uid)
                    .or_else(|| reports.iter().find(|report| report.uid == pod.uid))
            });
            let trouble = || Trouble {
                subject: format!("pod {}/{} on {}", pod.namespace, pod.name, desired.node),
                message: report.map(|report| words(&report.reason, &report.message)).unwrap_or_default(),
            };
            if let Some(limit) = report.and_then(|report| report.egress_limit.as_ref()) {
                tally.limit(limit, 1);
            }
            let is_done =
                |report: &&PodReport| matches!(report.state, PodState::Enforced | PodState::Audited);
            let is_note =
                |report: &PodReport| !report.reason.is_empty() && report.reason != REASON_LIMIT_REACHED;
            if report.filter(is_done).is_some_and(is_note) {
                keep(&mut tally.notes, trouble);
            }
            match report.map(|report| report.state) {
                Some(state @ (PodState::Enforced | PodState::Audited)) => {
                    match state {
                        PodState::Enforced => tally.enforced += 1,
                        _ => tally.audited += 1,
                    }
                    if report.is_some_and(|report| report.reason == REASON_LIMIT_REACHED) {
                        tally.limited += 1;
                        keep(&mut tally.limits, trouble);
                    }
                }
                Some(PodState::Failed) => {
                    tally.failed += 1;
                    keep(&mut tally.failures, trouble);
                }
                Some(PodState::Pending) | None => keep(&mut tally.pending, trouble),
            }
        }
        tally
    }

    /// Adds the tally of another node.
    pub fn add(&mut self, node: &Tally) {
        self.selected += node.selected;
        self.enforced += node.enforced;
        self.audited += node.audited;
        self.failed += node.failed;
        self.limited += node.limited;
        for trouble in &node.limits {
            keep(&mut self.limits, || trouble.clone());
        }
        for trouble in &node.failures {
            keep(&mut self.failures, || trouble.clone());
        }
        for trouble in &node.notes {
            keep(&mut self.notes, || trouble.clone());
        }
        for trouble in &node.pending {
            keep(&mut self.pending, || trouble.clone());
        }
        if let Some((limit, pods)) = &node.strictest {
            self.limit(limit, *pods);
        }
    }

    /// Of equal rates the first by name, so that the order of the nodes does not matter.
    fn limit(&mut self, limit: &EgressLimit, pods: usize) {
        let rank = |limit: &EgressLimit| (limit.bits_per_second, limit.of.clone());
        match &mut self.strictest {
            Some((known, count)) if known == limit => *count += pods,
            Some((known, _)) if rank(known) < rank(limit) => {}
            strictest => *strictest = Some((limit.clone(), pods)),
        }
    }
}

fn keep(list: &mut Vec<Trouble>, trouble: impl FnOnce() -> Trouble) {
    if list.len() < MAX_TROUBLES {
        list.push(trouble());
    }
}

fn words(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}
