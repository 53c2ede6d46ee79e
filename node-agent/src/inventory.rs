//! What the API server last said: the assignments of this node.

use std::{collections::BTreeMap, sync::Arc};

use kube::{api::DynamicObject, runtime::watcher::Event};
use l7egg_crds::Mode;

use crate::assignment::{Assignment, AssignmentKey, AssignmentObject};

/// All assignments of the node, and whether that is all.
#[derive(Debug, Default)]
pub struct Inventory {
    entries: BTreeMap<AssignmentKey, Entry>,
    /// Objects of a list that is still coming.
    listing: Option<Vec<DynamicObject>>,
    complete: bool,
    last_revision: u64,
    /// Every Egg is taken as one in mode Audit.
    audit: bool,
}

/// One assignment.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The object as it is now.
    pub object: AssignmentObject,
    /// Its newest readable content: the present one, or that of before it became unreadable.
    pub good: Option<Assignment>,
    /// Changes when the policy of `good` changes, and is never used for another policy.
    pub revision: u64,
}

impl Inventory {
    /// An empty one; `audit` takes every Egg as one in mode Audit.
    #[must_use]
    pub fn new(audit: bool) -> Self {
        Inventory { audit, ..Inventory::default() }
    }

    /// Takes in what the watch says. True if that can change anything.
    pub fn apply(&mut self, event: Event<DynamicObject>) -> bool {
        match event {
            Event::Init => {
                self.listing = Some(Vec::new());
                return false;
            }
            Event::InitApply(object) => {
                self.listing.get_or_insert_default().push(object);
                return false;
            }
            Event::InitDone => self.replace(),
            Event::Apply(object) => self.insert(&object),
            Event::Delete(object) => {
                self.entries.remove(&AssignmentKey::of(&object));
            }
        }
        true
    }

    /// Whether a full list has come. Until then nothing may be concluded from an assignment's absence.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The assignments in order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    fn replace(&mut self) {
        let objects = self.listing.take().unwrap_or_default();
        let listed: Vec<AssignmentKey> = objects.iter().map(AssignmentKey::of).collect();
        self.entries.retain(|key, _| listed.contains(key));
        for object in &objects {
            self.insert(object);
        }
        self.complete = true;
    }

    fn insert(&mut self, object: &DynamicObject) {
        let mut object = AssignmentObject::read(object);
        if let (true, Ok(assignment)) = (self.audit, &mut object.content) {
            Arc::make_mut(&mut assignment.policy).mode = Mode::Audit;
        }
        // An object of the same name but another uid is another one.
        let before = self.entries.remove(&object.key).filter(|entry| entry.object.uid == object.uid);
        let (good_before, revision_before) =
            before.map_or((None, None), |entry| (entry.good, Some(entry.revision)));
        let good = object.content.as_ref().ok().cloned().or_else(|| good_before.clone());
        let same = matches!((&good_before, &good), (Some(a), Some(b)) if a.policy == b.policy);
        let revision = revision_before.filter(|_| same).unwrap_or_else(|| {
            self.last_revision += 1;
            self.last_revision
        });
        self.entries.insert(object.key.clone(), Entry { object, good, revision });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assignment;

    fn names(inventory: &Inventory) -> Vec<&str> {
        inventory.entries().map(|entry| entry.object.key.name.as_str()).collect()
    }

    #[test]
    fn a_list_replaces_everything_at_its_end() {
        let mut inventory = Inventory::default();
        inventory.apply(Event::Apply(assignment("old").object()));
        assert!(!inventory.is_complete());
        assert!(!inventory.apply(Event::Init));
        assert!(!inventory.apply(Event::InitApply(assignment("new").object())));
        assert_eq!(names(&inventory), ["old"]);
        assert!(inventory.apply(Event::InitDone));
        assert_eq!(names(&inventory), ["new"]);
        assert!(inventory.is_complete());
        inventory.apply(Event::Delete(assignment("new").object()));
        assert!(names(&inventory).is_empty());
    }

    #[test]
    fn a_revision_is_of_the_policy_not_of_the_pods() {
        let mut inventory = Inventory::default();
        let revision = |inventory: &Inventory| inventory.entries().next().unwrap().revision;
        inventory.apply(Event::Apply(assignment("a").allow("10.0.0.0/8").pod("p1").object()));
        let first = revision(&inventory);
        inventory.apply(Event::Apply(assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2").object()));
        assert_eq!(revision(&inventory), first);
        inventory.apply(Event::Apply(assignment("a").allow("10.0.0.0/9").pod("p1").object()));
        assert_ne!(revision(&inventory), first);
    }

    #[test]
    fn an_unreadable_object_keeps_its_last_good_content() {
        let mut inventory = Inventory::default();
        inventory.apply(Event::Apply(assignment("a").allow("10.0.0.0/8").pod("p1").object()));
        inventory.apply(Event::Apply(assignment("a").pod("p1").malformed().object()));
        let entry = inventory.entries().next().unwrap();
        assert!(entry.object.content.is_err());
        assert_eq!(entry.good.as_ref().unwrap().pods.len(), 1);

        // Made again under the same name, it has nothing to do with the one before.
        inventory.apply(Event::Apply(assignment("a").uid("other").malformed().object()));
        assert!(inventory.entries().next().unwrap().good.is_none());
    }
}
