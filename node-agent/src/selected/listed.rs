//! What a watch has told so far, by key.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

/// The objects of one kind.
#[derive(Debug)]
pub struct Listed<V> {
    /// By key.
    pub items: BTreeMap<String, V>,
    /// Whether a full list has come.
    pub complete: bool,
    /// Keys of a list that is still coming.
    listing: Option<Vec<String>>,
}

impl<V> Default for Listed<V> {
    fn default() -> Self {
        Listed { items: BTreeMap::new(), complete: false, listing: None }
    }
}

impl<V: PartialEq> Listed<V> {
    /// Takes an event in; `value` makes of an object, and of what was known of it, what is kept. True if anything is
    /// another than before.
    pub fn apply<T>(
        &mut self,
        event: Event<T>,
        key: impl Fn(&T) -> String,
        value: impl Fn(T, Option<&V>) -> V,
    ) -> bool {
        match event {
            Event::Init => {
                self.listing = Some(Vec::new());
                false
            }
            Event::InitApply(object) => {
                let key = key(&object);
                self.listing.get_or_insert_default().push(key.clone());
                self.insert(key, object, value)
            }
            Event::InitDone => {
                let mut listed = self.listing.take().unwrap_or_default();
                listed.sort_unstable();
                self.items.retain(|key, _| listed.binary_search(key).is_ok());
                self.complete = true;
                true
            }
            Event::Apply(object) => self.insert(key(&object), object, value),
            Event::Delete(object) => self.items.remove(&key(&object)).is_some(),
        }
    }

    fn insert<T>(&mut self, key: String, object: T, value: impl Fn(T, Option<&V>) -> V) -> bool {
        let before = self.items.get(&key);
        let now = value(object, before);
        let changed = before != Some(&now);
        self.items.insert(key, now);
        changed
    }
}
