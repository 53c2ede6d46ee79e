//! Eggs that are there and of which nothing is known yet, because they were never judged.
//!
//! What exists of their assignments stays until they are: an operator that has just started cannot tell it from what no Egg
//! asks for. An Egg that is judged again goes on as it was, and is not among them.

use super::{EggKey, Index, ObjectKey};

impl Index {
    /// An Egg is there, and is not judged as it is now.
    pub fn await_egg(&mut self, key: &EggKey) {
        if !self.eggs.contains_key(key) {
            let namespace = key.assignment_namespace().to_owned();
            self.unjudged.entry(namespace).or_default().insert(key.clone());
        }
    }

    /// Whether this EggAssignment may be asked for by an Egg that is not judged. What it says of its Egg does not count:
    /// it may be unreadable, or not true.
    pub fn may_be_wanted(&self, key: &ObjectKey) -> bool {
        self.unjudged.contains_key(&key.namespace)
    }

    /// Number of Eggs that were never judged.
    pub fn unjudged(&self) -> usize {
        self.unjudged.values().map(|eggs| eggs.len()).sum()
    }

    /// The Egg is judged, or gone.
    pub(super) fn is_judged(&mut self, key: &EggKey) {
        let namespace = key.assignment_namespace();
        let Some(eggs) = self.unjudged.get_mut(namespace) else { return };
        eggs.remove(key);
        if !eggs.is_empty() {
            return;
        }
        // The last of its namespace: what was spared is looked at now.
        self.unjudged.remove(namespace);
        for observed in self.observed.of_namespace(namespace) {
            self.changes.observed(&observed.key, observed.egg().as_ref());
        }
    }
}
