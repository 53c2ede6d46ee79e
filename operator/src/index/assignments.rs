//! News of EggAssignments.

use std::collections::HashMap;

use super::egg_state::EggState;
use super::observed::News;
use super::{EggKey, Index, ObjectKey, Observed, is_older};

impl Index {
    /// A list of all EggAssignments begins. It is believed whatever versions it shows, as one of Eggs is.
    pub fn relist_assignments(&mut self) {
        self.observed.forget_versions();
    }

    /// An EggAssignment is there or has changed.
    pub fn apply_observed(&mut self, observed: Observed) {
        self.observed.seen(observed.resource_version);
        let key = observed.key.clone();
        if self.observe(observed) == News::Spec {
            self.changes.altered.insert(key);
        }
    }

    /// The API server's answer to the writing of an EggAssignment.
    pub fn assignment_written(&mut self, observed: Observed) {
        // The watch is further than this answer and does not have the object: it has been deleted since.
        if self.observed.get(&observed.key).is_some() || !self.observed.is_past(observed.resource_version) {
            self.observe(observed);
        }
    }

    /// An EggAssignment is gone.
    pub fn remove_observed(&mut self, key: &ObjectKey) {
        if let Some(old) = self.observed.remove(key) {
            self.mark_observed(key, old.egg());
            self.changes.altered.insert(key.clone());
        }
    }

    /// Why an EggAssignment could not be written the last time, or that it could be.
    pub fn set_write_error(&mut self, key: &ObjectKey, error: Option<String>) {
        let old = match error.clone() {
            Some(error) if self.targets.contains_key(key) => self.write_errors.insert(key.clone(), error),
            _ => self.write_errors.remove(key),
        };
        if old != error {
            self.stale_tally(key);
        }
    }

    /// Keeps the policy of an Egg once that was judged after its assignments were listed.
    pub(super) fn share_policies(&mut self, egg: &EggKey) {
        for key in self.observed.of_egg(egg).cloned().collect::<Vec<_>>() {
            if let Some(observed) = self.observed.get_mut(&key) {
                share_policy(&self.eggs, None, observed);
            }
        }
    }

    fn observe(&mut self, mut observed: Observed) -> News {
        let key = observed.key.clone();
        if let Some(known) = self.observed.get(&key)
            && is_older(observed.resource_version, known.resource_version)
        {
            return News::Nothing;
        }
        let egg = observed.egg();
        let sibling = egg.as_ref().and_then(|egg| self.observed.of_egg(egg).next());
        share_policy(&self.eggs, sibling.and_then(|key| self.observed.get(key)), &mut observed);
        let news = self.observed.insert(observed);
        if news != News::Nothing {
            self.mark_observed(&key, egg);
        }
        news
    }

    fn mark_observed(&mut self, key: &ObjectKey, egg: Option<EggKey>) {
        let egg = self.targets.get(key).map(|target| target.egg.clone()).or(egg);
        self.changes.observed(key, egg.as_ref());
        self.stale_tally(key);
    }

    fn stale_tally(&mut self, key: &ObjectKey) {
        if let Some(target) = self.targets.get(key)
            && let Some(state) = self.eggs.get_mut(&target.egg)
        {
            state.forget_tally(&target.node);
            self.changes.status.insert(target.egg.clone());
        }
    }
}

/// Every node's assignment of an Egg carries the same policy: it is kept once.
pub(super) fn share_policy(
    eggs: &HashMap<EggKey, EggState>,
    sibling: Option<&Observed>,
    observed: &mut Observed,
) {
    let Some(key) = observed.egg() else { return };
    let Some(assignment) = &mut observed.assignment else { return };
    let in_force = eggs.get(&key).and_then(EggState::policy);
    let siblings =
        sibling.and_then(|sibling| sibling.assignment.as_ref()).map(|assignment| &assignment.policy);
    let same = in_force.into_iter().chain(siblings).find(|policy| **policy == assignment.policy);
    if let Some(policy) = same {
        assignment.policy = policy.clone();
    }
}
