//! What Eggs said last of pods that their assignments name no more. For a pod that is ending that stays, and for one that moves to
//! another Egg until that one's assignment is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::Entry;
use crate::assignment::{AssignmentKey, egg_name};

/// For how long an assignment is waited for that is to come in the place of another. It comes within a second, if the operator can
/// write.
pub const REPLACED_WITHIN: Duration = Duration::from_secs(10);

/// The last word on every pod that has departed from an assignment, by pod and assignment.
#[derive(Debug, Default)]
pub struct Departed(BTreeMap<(String, AssignmentKey), LastWord>);

#[derive(Debug)]
struct LastWord {
    entry: Entry,
    /// Since when it waits for what comes in its place.
    waits_since: Option<Instant>,
}

/// How long the last word on a pod counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// While this is so.
    Still,
    /// Until something comes in its place, for [`REPLACED_WITHIN`] at most.
    UntilReplaced,
    /// No more.
    NoMore,
}

/// What was forgotten.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// Whether anything was.
    pub any: bool,
    /// In whose place nothing has come in time: the pod's uid, and the name of the Egg for people.
    pub unreplaced: Vec<(String, String)>,
}

impl Departed {
    /// An assignment is another one now, or gone.
    pub fn changed(&mut self, before: Option<&Entry>, now: Option<&Entry>) {
        let named: BTreeSet<&str> =
            now.into_iter().flat_map(Entry::pods).map(|pod| pod.uid.as_str()).collect();
        if let Some(now) = now {
            self.0.retain(|(uid, key), _| *key != now.object.key || !named.contains(uid.as_str()));
        }
        let Some((before, good)) = before.and_then(|before| Some((before, before.good.as_ref()?))) else {
            return;
        };
        for pod in before.pods().iter().filter(|pod| !named.contains(pod.uid.as_str())) {
            let last = LastWord { entry: before.alone(good, pod), waits_since: None };
            self.0.insert((pod.uid.clone(), before.object.key.clone()), last);
        }
    }

    /// Forgets all but what counts, by the pod's uid and the name of the Egg.
    pub fn keep(&mut self, now: Instant, counts: impl Fn(&str, &str) -> Counts) -> Forgotten {
        let (before, mut unreplaced) = (self.0.len(), Vec::new());
        self.0.retain(|(uid, _), last| {
            let Some(egg) = last.entry.good.as_ref().map(|good| egg_name(&good.egg)) else { return false };
            match counts(uid, &egg) {
                Counts::Still => {
                    last.waits_since = None;
                    true
                }
                Counts::UntilReplaced => {
                    let since = *last.waits_since.get_or_insert(now);
                    let waits = now.saturating_duration_since(since) < REPLACED_WITHIN;
                    if !waits {
                        unreplaced.push((uid.clone(), egg));
                    }
                    waits
                }
                Counts::NoMore => false,
            }
        });
        Forgotten { any: self.0.len() != before, unreplaced }
    }

    /// An entry for each, with that one pod.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.values().map(|last| &last.entry)
    }
}
