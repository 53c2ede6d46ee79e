//! How far one Egg has come on its nodes.

use std::collections::BTreeSet;

use l7egg_crds::{EgressLimit, PodState, REASON_LIMIT_REACHED};

use super::{Assignment, Observed};

/// Most troubles that are kept of one Egg: they are for a condition's message.
pub const MAX_TROUBLES: usize = 3;

/// Most lines of what nodes guard that are kept of one Egg.
pub const MAX_GUARD: usize = 16;

/// Pods, or nodes, of an Egg by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pods or nodes that the Egg selects.
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
    /// What its nodes keep reachable, as they say: the first lines.
    pub guard: BTreeSet<String>,
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
    /// the one desired, and about the boot that the node is in. Its part of a shared rate may be one of a moment ago: who shares comes and goes all the time.
    pub fn of_node(
        desired: &Assignment,
        observed: Option<&Observed>,
        boot_id: Option<&str>,
        write_error: Option<&str>,
    ) -> Self {
        let selected = desired.pods.len() + usize::from(desired.host.is_some());
        let mut tally = Tally { selected, ..Tally::default() };
        let current = observed.filter(|observed| {
            observed.assignment.as_ref().is_some_and(|it| it.is_but_for_shares(desired))
                && observed.status.observed_generation == Some(observed.generation)
        });
        if let (None, Some(error)) = (current, write_error) {
            tally.pending.push(Trouble {
                subject: format!("the assignment for {}", desired.node),
                message: error.to_owned(),
            });
            return tally;
        }
        // Ids have no order, so a report of the present boot looks the same while the Node still has the one before; that is pending for
        // a moment, as a kubelet tells of its boot within seconds of its start, and starts the agent.
        let of_another_boot = current.is_some_and(|observed| observed.status.is_of_another_boot(boot_id));
        let current = current.filter(|_| !of_another_boot);
        let nothing_said = || match of_another_boot {
            true => format!("node {} has restarted since its agent reported", desired.node),
            false => String::new(),
        };
        if desired.host.is_some() {
            let report = current.and_then(|observed| observed.status.host.as_ref());
            let trouble = || Trouble {
                subject: format!("node {}", desired.node),
                message: report.map_or_else(nothing_said, |report| words(&report.reason, &report.message)),
            };
            tally.count(report.map(|report| (report.state, report.reason.as_str())), trouble);
            tally.guard(report.into_iter().flat_map(|report| &report.guard));
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
                message: report.map_or_else(nothing_said, |report| words(&report.reason, &report.message)),
            };
            if let Some(limit) = report.and_then(|report| report.egress_limit.as_ref()) {
                tally.limit(limit, 1);
            }
            tally.count(report.map(|report| (report.state, report.reason.as_str())), trouble);
        }
        tally
    }

    /// What was reported of one pod or node: its state, and the reason for it.
    fn count(&mut self, report: Option<(PodState, &str)>, trouble: impl Fn() -> Trouble) {
        let (state, reason) = report.unwrap_or((PodState::Pending, ""));
        match state {
            PodState::Enforced => self.enforced += 1,
            PodState::Audited => self.audited += 1,
            PodState::Failed => {
                self.failed += 1;
                return keep(&mut self.failures, trouble);
            }
            PodState::Pending => return keep(&mut self.pending, trouble),
        }
        match reason {
            "" => {}
            REASON_LIMIT_REACHED => {
                self.limited += 1;
                keep(&mut self.limits, trouble);
            }
            _ => keep(&mut self.notes, trouble),
        }
    }

    /// In order of their text, so that the order of the nodes does not matter.
    fn guard<'a>(&mut self, lines: impl Iterator<Item = &'a String>) {
        self.guard.extend(lines.cloned());
        while self.guard.len() > MAX_GUARD {
            self.guard.pop_last();
        }
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
        self.guard(node.guard.iter());
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
