//! What the API server last said: the assignments of this node.

mod departed;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use kube::{api::DynamicObject, runtime::watcher::Event};
use l7egg_crds::{AssignedPod, Mode, PolicySpec};

use self::departed::Departed;
pub use self::departed::{Counts, Forgotten, REPLACED_WITHIN};
use crate::{
    assignment::{Assignment, AssignmentKey, AssignmentObject, egg_name},
    guard::{ApiServers, guard},
};

/// All assignments of the node, and whether that is all.
#[derive(Debug, Default)]
pub struct Inventory {
    entries: BTreeMap<AssignmentKey, Entry>,
    departed: Departed,
    /// Objects of a list that is still coming.
    listing: Option<Vec<DynamicObject>>,
    complete: bool,
    last_revision: u64,
    /// Every Egg is taken as one in mode Audit.
    audit: bool,
    /// Not known yet: nothing new is enforced for the node itself.
    api_servers: Option<ApiServers>,
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
    /// What `good` keeps reachable, if it is for the node itself.
    pub guard: Vec<String>,
    /// The policy of `good` as it is written, without what is kept reachable: people are told of these rules.
    pub written: Option<Arc<PolicySpec>>,
    /// The pods of `good`, and those that the object names besides, where it became unreadable since.
    pods: Vec<AssignedPod>,
}

impl Entry {
    fn new(
        object: AssignmentObject,
        good: Option<Assignment>,
        revision: u64,
        guard: Vec<String>,
        written: Option<Arc<PolicySpec>>,
    ) -> Self {
        let mut pods = good.as_ref().map(|good| good.pods.clone()).unwrap_or_default();
        let known: BTreeSet<String> = pods.iter().map(|pod| pod.uid.clone()).collect();
        pods.extend(object.pods().iter().filter(|pod| !known.contains(&pod.uid)).cloned());
        Entry { object, good, revision, guard, written, pods }
    }

    /// The pods that its policy is for: those of its newest readable content, and what can be read of those that came after it.
    #[must_use]
    pub fn pods(&self) -> &[AssignedPod] {
        &self.pods
    }

    fn names(&self, uid: &str) -> bool {
        self.pods.iter().any(|pod| pod.uid == uid)
    }

    /// The same, for one of its pods.
    fn alone(&self, good: &Assignment, pod: &AssignedPod) -> Self {
        let alone = Assignment { pods: vec![pod.clone()], ..good.clone() };
        let object = AssignmentObject { content: Ok(alone.clone()), ..self.object.clone() };
        Entry::new(object, Some(alone), self.revision, self.guard.clone(), self.written.clone())
    }

    /// Whether more than the status that the API server has is another.
    fn is_another(&self, other: &Entry) -> bool {
        let Entry {
            object: AssignmentObject { key, uid, generation, content, reported: _ },
            good,
            revision,
            guard,
            written: _, // With another one comes another revision.
            // They follow from the others.
            pods: _,
        } = self;
        let of = &other.object;
        (key, uid, generation, content) != (&of.key, &of.uid, &of.generation, &of.content)
            || (good, revision, guard) != (&other.good, &other.revision, &other.guard)
    }
}

impl Inventory {
    /// An empty one; `audit` takes every Egg as one in mode Audit.
    #[must_use]
    pub fn new(audit: bool) -> Self {
        Inventory { audit, ..Inventory::default() }
    }

    /// Takes in what the watch says. True if that can change anything: not if it is a status alone, such as this agent has just
    /// written.
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
            Event::Apply(object) => return self.insert(&object),
            Event::Delete(object) => {
                let before = self.entries.remove(&AssignmentKey::of(&object));
                self.departed.changed(before.as_ref(), None);
            }
        }
        true
    }

    /// Takes in where the API server is. True if that changes anything.
    pub fn set_api_servers(&mut self, servers: ApiServers) -> bool {
        if self.api_servers.as_ref() == Some(&servers) {
            return false;
        }
        self.api_servers = Some(servers);
        let of_node = |entry: &&Entry| entry.object.content.as_ref().is_ok_and(|it| it.host.is_some());
        let of_node: Vec<AssignmentObject> =
            self.entries.values().filter(of_node).map(|entry| entry.object.clone()).collect();
        let any = !of_node.is_empty();
        of_node.into_iter().for_each(|object| _ = self.put(object));
        any
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

    /// What was said last of pods that their assignments name no more, unless it is forgotten: an entry for each, with that pod
    /// alone.
    pub fn departed(&self) -> impl Iterator<Item = &Entry> {
        self.departed.entries()
    }

    /// Forgets what was said last of pods but what still counts, beside this, by the pod's uid and the name of the Egg for people.
    pub fn keep_departed(
        &mut self,
        now: Instant,
        counts: impl Fn(&Inventory, &str, &str) -> Counts,
    ) -> Forgotten {
        let mut departed = std::mem::take(&mut self.departed);
        let forgotten = departed.keep(now, |uid, egg| counts(self, uid, egg));
        self.departed = departed;
        forgotten
    }

    /// Whether an assignment of the Egg with this name for people names a pod.
    #[must_use]
    pub fn is_assigned_by(&self, egg: &str, uid: &str) -> bool {
        let of_egg = |entry: &&Entry| entry.good.as_ref().is_some_and(|good| egg_name(&good.egg) == egg);
        self.entries().filter(of_egg).any(|entry| entry.names(uid))
    }

    /// Whether any assignment names a pod.
    #[must_use]
    pub fn is_assigned(&self, uid: &str) -> bool {
        self.entries().any(|entry| entry.names(uid))
    }

    fn replace(&mut self) {
        let objects = self.listing.take().unwrap_or_default();
        let listed: Vec<AssignmentKey> = objects.iter().map(AssignmentKey::of).collect();
        for (_, gone) in self.entries.extract_if(.., |key, _| !listed.contains(key)) {
            self.departed.changed(Some(&gone), None);
        }
        for object in &objects {
            self.insert(object);
        }
        self.complete = true;
    }

    fn insert(&mut self, object: &DynamicObject) -> bool {
        let mut object = AssignmentObject::read(object);
        if let (true, Ok(assignment)) = (self.audit, &mut object.content) {
            Arc::make_mut(&mut assignment.policy).mode = Mode::Audit;
        }
        self.put(object)
    }

    /// True if anything but the status is another than before.
    fn put(&mut self, mut object: AssignmentObject) -> bool {
        // An object of the same name but another uid is another one.
        let before = self.entries.remove(&object.key);
        let (good_before, revision_before, guard_before, written_before) =
            match before.clone().filter(|entry| entry.object.uid == object.uid) {
                Some(entry) => (entry.good, Some(entry.revision), entry.guard, entry.written),
                None => (None, None, Vec::new(), None),
            };
        // What is the same is kept once, however often it is told and whoever still has it.
        if let (Ok(content), Some(before)) = (&mut object.content, &written_before) {
            share(&mut content.policy, before);
        }
        let content = object.content.as_ref().ok();
        let guarded = content.and_then(|content| Some((self.guarded(content)?, Arc::clone(&content.policy))));
        let (mut good, guard, written) = match guarded {
            Some(((good, guard), written)) => (Some(good), guard, Some(written)),
            None => (good_before.clone(), guard_before, written_before.clone()),
        };
        let is_good_same = match (&mut good, &good_before) {
            (Some(good), Some(before)) => share(&mut good.policy, &before.policy),
            _ => false,
        };
        let same = is_good_same && written == written_before;
        let revision = revision_before.filter(|_| same).unwrap_or_else(|| {
            self.last_revision += 1;
            self.last_revision
        });
        let entry = Entry::new(object, good, revision, guard, written);
        self.departed.changed(before.as_ref(), Some(&entry));
        let changed = before.is_none_or(|before| before.is_another(&entry));
        self.entries.insert(entry.object.key.clone(), entry);
        changed
    }

    /// What is to be enforced; of the node itself with what it keeps reachable. Nothing while that is not known.
    fn guarded(&self, content: &Assignment) -> Option<(Assignment, Vec<String>)> {
        let Some(host) = &content.host else { return Some((content.clone(), Vec::new())) };
        let guard = guard(self.api_servers.as_ref()?, &host.pod_cidrs);
        let policy = Arc::new(guard.apply(&content.policy));
        Some((Assignment { policy, ..content.clone() }, guard.lines()))
    }
}

/// Makes one of what is the same. Whether it is.
fn share(policy: &mut Arc<PolicySpec>, before: &Arc<PolicySpec>) -> bool {
    let is_same = Arc::ptr_eq(policy, before) || policy == before;
    if is_same {
        *policy = Arc::clone(before);
    }
    is_same
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assignment;

    #[test]
    fn a_policy_that_is_told_again_is_kept_once() {
        let mut inventory = Inventory::default();
        inventory.set_api_servers(["10.0.0.1:6443".parse().unwrap()].into());
        let kept = |inventory: &Inventory| {
            let entry = inventory.entries().next().unwrap();
            let policies = [
                &entry.good.as_ref().unwrap().policy,
                entry.written.as_ref().unwrap(),
                &entry.object.content.as_ref().unwrap().policy,
            ];
            policies.map(Arc::as_ptr)
        };
        for built in
            [assignment("a").allow("192.0.2.0/24").pod("p1"), assignment("a").allow("192.0.2.0/24").host()]
        {
            inventory.apply(Event::Apply(built.object()));
            let before = kept(&inventory);
            inventory.apply(Event::Apply(built.clone().generation(2).object()));
            assert_eq!(kept(&inventory), before);
            inventory.apply(Event::Apply(built.clone().allow("10.0.0.0/8").object()));
            assert_ne!(kept(&inventory), before);
            inventory.apply(Event::Delete(built.object()));
        }
    }

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
    fn a_status_alone_changes_nothing() {
        let mut inventory = Inventory::default();
        let built = || assignment("a").allow("10.0.0.0/8").pod("p1");
        assert!(inventory.apply(Event::Apply(built().object())));
        let mut written = built().object();
        written.data["status"] = serde_json::json!({"observedGeneration": 1, "pods": []});
        assert!(!inventory.apply(Event::Apply(written.clone())));
        assert!(inventory.entries().next().unwrap().object.reported.is_some(), "it is known all the same");
        assert!(!inventory.apply(Event::Apply(written)));
        assert!(inventory.apply(Event::Apply(built().pod("p2").object())));
        assert!(inventory.apply(Event::Apply(built().pod("p2").generation(7).object())));
        assert!(inventory.apply(Event::Apply(built().pod("p2").generation(7).uid("other").object())));
    }

    #[test]
    fn the_node_waits_for_its_guard_and_keeps_what_it_has() {
        let mut inventory = Inventory::default();
        let servers = |server: &str| [server.parse().unwrap()].into();
        let egress = |inventory: &Inventory| {
            let good = inventory.entries().next().unwrap().good.clone();
            good.map(|good| {
                good.policy.egress.iter().map(|rule| rule.to[0].cidr.clone().unwrap()).collect::<Vec<_>>()
            })
        };
        let host = assignment("a").allow("192.0.2.0/24").host();
        inventory.apply(Event::Apply(host.object()));
        assert_eq!(egress(&inventory), None);
        assert!(inventory.set_api_servers(servers("10.0.0.1:6443")));
        assert_eq!(egress(&inventory).unwrap(), ["192.0.2.0/24", "10.0.0.1/32", "10.88.1.0/24", "0.0.0.0/0"]);
        // People are told of the rules that they have written.
        let entry = inventory.entries().next().unwrap();
        assert_eq!(entry.written.as_ref().unwrap().egress.len(), 1);
        let revision = entry.revision;
        assert!(!inventory.set_api_servers(servers("10.0.0.1:6443")));
        assert!(inventory.set_api_servers(servers("10.0.0.2:6443")));
        assert_eq!(egress(&inventory).unwrap()[1], "10.0.0.2/32");
        assert_ne!(inventory.entries().next().unwrap().revision, revision);
        inventory.apply(Event::Apply(host.malformed().object()));
        assert_eq!(egress(&inventory).unwrap().len(), 4);
    }

    #[test]
    fn an_unreadable_object_keeps_its_last_good_content() {
        let mut inventory = Inventory::default();
        inventory.apply(Event::Apply(assignment("a").allow("10.0.0.0/8").pod("p1").object()));
        inventory.apply(Event::Apply(assignment("a").pod("p1").malformed().object()));
        let entry = inventory.entries().next().unwrap();
        assert!(entry.object.content.is_err());
        assert_eq!(entry.good.as_ref().unwrap().pods.len(), 1);

        // Pods that came later are like those before, and those before stay; not so who came in between and is gone.
        let uids = |inventory: &Inventory| {
            let entry = inventory.entries().next().unwrap();
            entry.pods().iter().map(|pod| pod.uid.clone()).collect::<Vec<_>>()
        };
        inventory.apply(Event::Apply(assignment("a").pod("p2").malformed().object()));
        assert_eq!(uids(&inventory), ["p1", "p2"]);
        inventory.apply(Event::Apply(assignment("a").pod("p3").malformed().object()));
        assert_eq!(uids(&inventory), ["p1", "p3"]);
        let departed: Vec<_> = inventory.departed().map(|entry| entry.pods()[0].uid.as_str()).collect();
        assert_eq!(departed, ["p2"]);

        // Made again under the same name, it has nothing to do with the one before.
        inventory.apply(Event::Apply(assignment("a").uid("other").malformed().object()));
        assert!(inventory.entries().next().unwrap().good.is_none());
    }
}
