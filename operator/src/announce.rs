//! Which events a change of an Egg's status is worth.

use kube::runtime::events::{Event, EventType};
use l7egg_crds::{
    CONDITION_ACCEPTED, CONDITION_PROGRAMMED, Condition, ConditionStatus, EggStatus, REASON_LIMIT_REACHED,
};

use crate::status::find;

/// Longest note of an event, in bytes (events.k8s.io/v1).
const MAX_NOTE: usize = 1024;

/// The events for the change from `old` to `new`. `programmed_before`: the generation in `new` has been
/// announced as programmed already; pods that come and go are not worth an event each.
pub fn events(old: &EggStatus, new: &EggStatus, programmed_before: bool) -> Vec<Event> {
    let mut events = Vec::new();
    if let Some(accepted) = find(new, CONDITION_ACCEPTED) {
        let before = find(old, CONDITION_ACCEPTED);
        match accepted.status {
            ConditionStatus::True if !is_true(before) => {
                events.push(event(EventType::Normal, "Accepted", "Accept", &accepted.message));
            }
            ConditionStatus::False if differs(before, accepted) => {
                let note = format!("{}: {}", accepted.reason, accepted.message);
                events.push(event(EventType::Warning, "Rejected", "Accept", &note));
            }
            _ => {}
        }
    }
    if let Some(programmed) = find(new, CONDITION_PROGRAMMED) {
        let before = find(old, CONDITION_PROGRAMMED);
        // How many pods and which it is about differs with every pod that comes and goes.
        let is_news = before.is_none_or(|before| before.reason != programmed.reason);
        let is_edited =
            before.is_some_and(|before| before.observed_generation != programmed.observed_generation);
        if programmed.reason == "Failed" && (is_news || is_edited) {
            events.push(event(EventType::Warning, "PodFailed", "Program", &programmed.message));
        }
        // Beside a limit that is reached all the same: nobody tells it later.
        if is_programmed(new) && !programmed_before {
            events.push(event(EventType::Normal, "Programmed", "Program", &programmed.message));
        }
        if programmed.reason == REASON_LIMIT_REACHED && is_news {
            events.push(event(EventType::Warning, REASON_LIMIT_REACHED, "Program", &programmed.message));
        }
    }
    events
}

/// Whether this status says that pods or nodes are enforced, and all of them.
pub fn is_programmed(status: &EggStatus) -> bool {
    let selected = status.nodes.as_ref().unwrap_or(&status.pods).selected;
    is_true(find(status, CONDITION_PROGRAMMED)) && selected > 0
}

fn is_true(condition: Option<&Condition>) -> bool {
    condition.is_some_and(|condition| condition.status == ConditionStatus::True)
}

fn differs(old: Option<&Condition>, new: &Condition) -> bool {
    old.is_none_or(|old| (&old.reason, &old.message) != (&new.reason, &new.message))
}

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    let end = (0..=note.len().min(MAX_NOTE)).rev().find(|&end| note.is_char_boundary(end)).unwrap_or(0);
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note[..end].to_owned()),
        action: action.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use l7egg_crds::PodCounts;

    use super::*;

    fn status(
        accepted: (ConditionStatus, &str),
        programmed: (ConditionStatus, &str),
        selected: i32,
    ) -> EggStatus {
        let condition = |type_: &str, (status, reason): (ConditionStatus, &str)| Condition {
            type_: type_.into(),
            status,
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            reason: reason.into(),
            message: "words".into(),
        };
        EggStatus {
            observed_generation: Some(1),
            conditions: vec![
                condition(CONDITION_ACCEPTED, accepted),
                condition(CONDITION_PROGRAMMED, programmed),
            ],
            pods: PodCounts { selected, ..PodCounts::default() },
            ..EggStatus::default()
        }
    }

    fn reasons(old: &EggStatus, new: &EggStatus, before: bool) -> Vec<String> {
        events(old, new, before).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn the_life_of_an_egg() {
        use ConditionStatus::{False, True};
        let pending = status((True, "Accepted"), (False, "Pending"), 2);
        assert_eq!(reasons(&EggStatus::default(), &pending, false), ["Accepted"]);
        let programmed = status((True, "Accepted"), (True, "Programmed"), 2);
        assert_eq!(reasons(&pending, &programmed, false), ["Programmed"]);
        assert_eq!(reasons(&programmed, &pending, true), [""; 0]);
        assert_eq!(reasons(&pending, &programmed, true), [""; 0], "pods came and went");
        let failed = status((True, "Accepted"), (False, "Failed"), 2);
        assert_eq!(reasons(&pending, &failed, true), ["PodFailed"]);
        assert_eq!(reasons(&failed, &failed, true), [""; 0]);
        let mut others_failed = failed.clone();
        others_failed.conditions[1].message = "other words".into();
        assert_eq!(reasons(&failed, &others_failed, true), [""; 0], "pods came and went");
        others_failed.conditions[1].observed_generation = Some(2);
        assert_eq!(reasons(&failed, &others_failed, true), ["PodFailed"], "an edit does not help");
        let limited = status((True, "Accepted"), (True, "LimitReached"), 2);
        assert_eq!(reasons(&programmed, &limited, true), ["LimitReached"]);
        let mut others_limited = limited.clone();
        others_limited.conditions[1].message = "other words".into();
        assert_eq!(reasons(&limited, &others_limited, true), [""; 0]);
        assert_eq!(reasons(&limited, &programmed, true), [""; 0]);
        assert_eq!(reasons(&pending, &limited, false), ["Programmed", "LimitReached"]);
        let rejected = status((False, "Invalid"), (False, "NotAccepted"), 2);
        assert_eq!(reasons(&programmed, &rejected, true), ["Rejected"]);
        assert_eq!(reasons(&rejected, &rejected, true), [""; 0]);
        assert_eq!(reasons(&rejected, &programmed, false), ["Accepted", "Programmed"]);
        let mut of_nodes = EggStatus { pods: PodCounts::default(), ..programmed.clone() };
        of_nodes.nodes = Some(programmed.pods);
        assert_eq!(reasons(&pending, &of_nodes, false), ["Programmed"]);
        of_nodes.nodes = Some(PodCounts::default());
        assert_eq!(reasons(&pending, &of_nodes, false), [""; 0]);
        let no_pods = status((True, "Accepted"), (True, "NoPods"), 0);
        assert_eq!(reasons(&EggStatus::default(), &no_pods, false), ["Accepted"]);
    }
}
