//! The status of an Egg, from what the index knows of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use l7egg_crds::{
    CONDITION_ACCEPTED, CONDITION_PROGRAMMED, Condition, ConditionStatus, EggStatus, PodCounts,
    REASON_LIMIT_REACHED,
};

use crate::index::{Summary, Tally, Trouble};

/// Longest message of a condition, in bytes; the API server would take 32 KiB of `metav1.Condition`.
const MAX_MESSAGE: usize = 2048;

/// What the Egg's status is to be at this time. A condition whose truth does not change keeps the time of
/// its last change.
pub fn compute(summary: &Summary<'_>, now: Timestamp) -> EggStatus {
    let generation = summary.egg.generation;
    let previous = &summary.egg.status;
    let condition = |type_: &str, (status, reason, message): (ConditionStatus, &str, String)| Condition {
        type_: type_.to_owned(),
        status,
        observed_generation: Some(generation),
        last_transition_time: find(previous, type_)
            .filter(|condition| condition.status == status)
            .map_or_else(|| whole_seconds(now), |condition| condition.last_transition_time.clone()),
        reason: reason.to_owned(),
        message: cut(message),
    };
    let counts = PodCounts {
        selected: count(summary.tally.selected),
        enforced: count(summary.tally.enforced),
        audited: count(summary.tally.audited),
        failed: count(summary.tally.failed),
    };
    EggStatus {
        observed_generation: Some(generation),
        in_force_generation: summary.in_force.filter(|_| summary.egg.spec.is_err()),
        conditions: vec![
            condition(CONDITION_ACCEPTED, accepted(summary)),
            condition(CONDITION_PROGRAMMED, programmed(summary)),
        ],
        pods: if summary.is_for_nodes { PodCounts::default() } else { counts },
        nodes: summary.is_for_nodes.then_some(counts),
        guard: summary.tally.guard.iter().cloned().collect(),
        egress_limit: egress_limit(&summary.tally),
    }
}

/// The condition of that type.
pub fn find<'a>(status: &'a EggStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the change from `old` to `new` can wait a moment: the Egg itself is the same, and fewer of its
/// pods are enforced because pods came. The agents' next reports may make it unnecessary.
pub fn can_wait(old: &EggStatus, new: &EggStatus) -> bool {
    let truth = |status| find(status, CONDITION_PROGRAMMED).map(|condition| condition.status);
    let failed = |status: &EggStatus| status.pods.failed + status.nodes.map_or(0, |nodes| nodes.failed);
    old.observed_generation == new.observed_generation
        && failed(new) <= failed(old)
        && truth(old) == Some(ConditionStatus::True)
        && truth(new) == Some(ConditionStatus::False)
}

fn accepted(summary: &Summary<'_>) -> (ConditionStatus, &'static str, String) {
    match &summary.egg.spec {
        Ok(_) => {
            (ConditionStatus::True, "Accepted", "the policy can be enforced as it is written".to_owned())
        }
        Err(rejection) => (ConditionStatus::False, rejection.reason, rejection.message.clone()),
    }
}

fn programmed(summary: &Summary<'_>) -> (ConditionStatus, &'static str, String) {
    let Tally {
        selected,
        enforced,
        audited,
        failed,
        failures,
        notes,
        pending,
        limited,
        limits,
        strictest: _,
        guard,
    } = &summary.tally;
    let what = if summary.is_for_nodes { "node" } else { "pod" };
    let done = progress(what, *selected, *enforced, *audited);
    let (status, reason, message) = if summary.egg.spec.is_err() {
        let message = match summary.in_force {
            Some(generation) => {
                format!("the Egg was not accepted; generation {generation} stays in force: {done}")
            }
            None => format!("the Egg was not accepted: it restricts no {what}"),
        };
        (ConditionStatus::False, "NotAccepted", message)
    } else if *failed > 0 {
        let message = format!("{failed} of {selected} {what}s failed: {}", list(failures, *failed));
        (ConditionStatus::False, "Failed", message)
    } else if enforced + audited < *selected {
        let waiting = selected - enforced - audited;
        let message = format!("{done}; waiting for {}", list(pending, waiting));
        (ConditionStatus::False, "Pending", message)
    } else if *selected == 0 {
        match summary.is_for_nodes {
            true => (ConditionStatus::True, "NoNodes", "no node is selected".to_owned()),
            false => (ConditionStatus::True, "NoPods", "no scheduled pod is selected".to_owned()),
        }
    } else if *limited > 0 {
        let message = format!("{done}; a limit is reached: {}", list(limits, *limited));
        (ConditionStatus::True, REASON_LIMIT_REACHED, message)
    } else {
        let notes = if notes.is_empty() { String::new() } else { format!("; {}", list(notes, notes.len())) };
        let guard: Vec<&str> = guard.iter().map(String::as_str).collect();
        let guard = match summary.is_for_nodes {
            true => format!("; reachable whatever the Egg says: {}", guard.join("; ")),
            false => String::new(),
        };
        (ConditionStatus::True, "Programmed", done + &notes + &guard)
    };
    (status, reason, message)
}

fn egress_limit(tally: &Tally) -> String {
    match &tally.strictest {
        None => String::new(),
        Some((limit, pods)) if *pods == tally.selected => limit.to_string(),
        Some((limit, pods)) => format!("{limit} ({pods} of {} pods)", tally.selected),
    }
}

fn progress(what: &str, selected: usize, enforced: usize, audited: usize) -> String {
    match (enforced, audited) {
        (_, 0) => format!("{enforced} of {selected} {what}s enforced"),
        (0, _) => format!("{audited} of {selected} {what}s audited: nothing is denied"),
        _ => format!("{enforced} of {selected} {what}s enforced, {audited} audited"),
    }
}

fn list(troubles: &[Trouble], total: usize) -> String {
    let mut parts: Vec<String> = troubles
        .iter()
        .map(|trouble| match trouble.message.as_str() {
            "" => trouble.subject.clone(),
            message => format!("{} ({message})", trouble.subject),
        })
        .collect();
    if total > troubles.len() && !troubles.is_empty() {
        parts.push(format!("{} more", total - troubles.len()));
    }
    parts.join(", ")
}

fn cut(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE - 4).rev().find(|&end| message.is_char_boundary(end)).unwrap_or(0);
        message.truncate(end);
        message.push_str(" ...");
    }
    message
}

/// `metav1.Time` has whole seconds: with more, what is written would not be what is read.
fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
