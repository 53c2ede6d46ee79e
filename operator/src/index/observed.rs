//! The EggAssignments that exist.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{EggKey, ObjectKey, Observed};

#[derive(Debug, Default)]
pub(super) struct ObservedSet {
    by_key: BTreeMap<ObjectKey, Observed>,
    by_egg: HashMap<EggKey, BTreeSet<ObjectKey>>,
    /// The newest resource version that the watch has shown.
    newest: u64,
}

/// What is new of an EggAssignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing but the resource version.
    Nothing,
    /// An agent's report, or a number of the API server's.
    Report,
    /// What it asks for, or whose it is.
    Spec,
}

impl ObservedSet {
    pub fn get(&self, key: &ObjectKey) -> Option<&Observed> {
        self.by_key.get(key)
    }

    pub fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut Observed> {
        self.by_key.get_mut(key)
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn values(&self) -> impl Iterator<Item = &Observed> {
        self.by_key.values()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Observed> {
        self.by_key.values_mut()
    }

    pub fn of_egg(&self, egg: &EggKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_egg.get(egg).into_iter().flatten()
    }

    pub fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Observed> {
        let first = ObjectKey::new(namespace, "");
        self.by_key
            .range(first..)
            .map(|(_, observed)| observed)
            .take_while(move |it| it.key.namespace == namespace)
    }

    pub fn forget_versions(&mut self) {
        self.newest = 0;
        self.by_key.values_mut().for_each(|observed| observed.resource_version = 0);
    }

    pub fn seen(&mut self, resource_version: u64) {
        self.newest = self.newest.max(resource_version);
    }

    pub fn is_past(&self, resource_version: u64) -> bool {
        resource_version != 0 && resource_version <= self.newest
    }

    /// What of it is new.
    pub fn insert(&mut self, observed: Observed) -> News {
        let key = observed.key.clone();
        let egg = observed.egg();
        let resource_version = observed.resource_version;
        let news = match self.by_key.get(&key) {
            Some(known) if Observed { resource_version, ..known.clone() } == observed => News::Nothing,
            Some(known) if known.labelled == observed.labelled && known.assignment == observed.assignment => {
                News::Report
            }
            _ => News::Spec,
        };
        if let Some(old) = self.by_key.insert(key.clone(), observed) {
            self.unlink(&key, old.egg());
        }
        if let Some(egg) = egg {
            self.by_egg.entry(egg).or_default().insert(key);
        }
        news
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Option<Observed> {
        let old = self.by_key.remove(key)?;
        self.unlink(key, old.egg());
        Some(old)
    }

    fn unlink(&mut self, key: &ObjectKey, egg: Option<EggKey>) {
        let Some(egg) = egg else { return };
        if let Some(keys) = self.by_egg.get_mut(&egg) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_egg.remove(&egg);
            }
        }
    }
}
