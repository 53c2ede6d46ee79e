//! Lists: what a new one no longer has is gone.

use std::collections::HashSet;
use std::hash::Hash;

use crate::index::{EggKey, ObjectKey};
use crate::watch::Change;

/// The lists of one kind of object.
#[derive(Debug)]
pub struct Listing<K> {
    complete: bool,
    seen: Option<HashSet<K>>,
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Listing { complete: false, seen: None }
    }
}

impl<K: Eq + Hash + Clone> Listing<K> {
    /// The objects that are gone with this change; `known` are all that are known.
    pub fn gone<T>(
        &mut self,
        change: &Change<T, K>,
        key: impl Fn(&T) -> K,
        known: impl FnOnce() -> Vec<K>,
    ) -> Vec<K> {
        match change {
            Change::Listing => self.seen = Some(HashSet::new()),
            Change::Set(value) => {
                if let Some(seen) = &mut self.seen {
                    seen.insert(key(value));
                }
            }
            Change::Present(key) => {
                if let Some(seen) = &mut self.seen {
                    seen.insert(key.clone());
                }
            }
            Change::Gone(key) => return vec![key.clone()],
            Change::Listed => {
                self.complete = true;
                if let Some(seen) = self.seen.take() {
                    return known().into_iter().filter(|key| !seen.contains(key)).collect();
                }
            }
        }
        Vec::new()
    }
}

/// The lists of all kinds of objects.
#[derive(Debug, Default)]
pub struct Listings {
    /// Of Eggs.
    pub eggs: Listing<EggKey>,
    /// Of ClusterEggs.
    pub cluster_eggs: Listing<EggKey>,
    /// Of pods.
    pub pods: Listing<ObjectKey>,
    /// Of namespaces.
    pub namespaces: Listing<String>,
    /// Of nodes.
    pub nodes: Listing<String>,
    /// Of EggAssignments.
    pub assignments: Listing<ObjectKey>,
}

impl Listings {
    /// The kinds of which no list is complete yet.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        [
            ("eggs", self.eggs.complete),
            ("clustereggs", self.cluster_eggs.complete),
            ("pods", self.pods.complete),
            ("namespaces", self.namespaces.complete),
            ("nodes", self.nodes.complete),
            ("eggassignments", self.assignments.complete),
        ]
        .into_iter()
        .filter_map(|(what, complete)| (!complete).then_some(what))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_list_no_longer_has_is_gone() {
        const NONE: [u8; 0] = [];
        let mut listing = Listing::<u8>::default();
        let mut gone = |change: Change<u8, u8>| listing.gone(&change, |value| *value, || vec![1, 2, 3]);
        assert_eq!(gone(Change::Set(9)), NONE);
        assert_eq!(gone(Change::Gone(9)), [9]);
        assert_eq!(gone(Change::Listing), NONE);
        assert_eq!(gone(Change::Set(1)), NONE);
        // The list broke off and begins again.
        assert_eq!(gone(Change::Listing), NONE);
        assert_eq!(gone(Change::Set(2)), NONE);
        // There is one that cannot be read.
        assert_eq!(gone(Change::Present(3)), NONE);
        assert_eq!(gone(Change::Listed), [1]);
        assert_eq!(gone(Change::Set(4)), NONE);
    }

    #[test]
    fn all_kinds_are_waited_for() {
        let mut listings = Listings::default();
        assert_eq!(listings.waiting_for().len(), 6);
        listings.pods.gone(&Change::<(), _>::Listed, |()| ObjectKey::new("", ""), Vec::new);
        assert!(!listings.waiting_for().contains(&"pods"));
    }
}
