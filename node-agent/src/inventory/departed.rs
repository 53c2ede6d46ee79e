//! What Eggs said last of pods that their assignments name no more. For a pod that is ending that stays.

use std::collections::{BTreeMap, BTreeSet};

use super::Entry;
use crate::assignment::{AssignmentKey, egg_name};

/// The last word on every pod that has departed from an assignment, by pod and assignment.
#[derive(Debug, Default)]
pub struct Departed(BTreeMap<(String, AssignmentKey), Entry>);

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
            self.0.insert((pod.uid.clone(), before.object.key.clone()), before.alone(good, pod));
        }
    }

    /// Forgets all but what is to be kept, by the pod's uid and the name of the Egg. True if anything is forgotten.
    pub fn keep(&mut self, keep: impl Fn(&str, &str) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|(uid, _), entry| {
            entry.good.as_ref().is_some_and(|good| keep(uid, &egg_name(&good.egg)))
        });
        self.0.len() != before
    }

    /// An entry for each, with that one pod.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.values()
    }
}
