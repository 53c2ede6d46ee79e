//! What was said of Eggs, remembered: to judge patterns can take a second, and their author decides how often they are looked at.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kube::api::DynamicObject;

use crate::index::{Accepted, Egg, EggKey, Rejection};

/// What is said of a spec.
pub type Judgement = Result<Accepted, Rejection>;

/// What was said of the Eggs that there are.
#[derive(Debug, Default)]
pub struct Judged(Mutex<HashMap<EggKey, Known>>);

#[derive(Debug)]
struct Known {
    uid: String,
    /// A spec does not change without it.
    generation: i64,
    spec: Judgement,
    /// Whether it was in the list that is being told.
    is_listed: bool,
}

impl Judged {
    /// An Egg for the index, as `read` would read it. `key` is its key.
    pub fn read(
        &self,
        object: &DynamicObject,
        key: &EggKey,
        read: impl FnOnce(&DynamicObject, Option<Judgement>) -> Option<Egg>,
    ) -> Option<Egg> {
        let (uid, generation) = (object.metadata.uid.as_deref(), object.metadata.generation);
        let known = self.lock().get_mut(key).and_then(|known| {
            let is_same = uid == Some(known.uid.as_str()) && generation == Some(known.generation);
            known.is_listed = true;
            is_same.then(|| known.spec.clone())
        });
        let egg = read(object, known)?;
        let spec = egg.spec.clone();
        let known = Known { uid: egg.uid.clone(), generation: egg.generation, spec, is_listed: true };
        self.lock().insert(key.clone(), known);
        Some(egg)
    }

    /// It is gone.
    pub fn forget(&self, key: &EggKey) {
        self.lock().remove(key);
    }

    /// A list of all Eggs begins.
    pub fn listing(&self) {
        self.lock().values_mut().for_each(|known| known.is_listed = false);
    }

    /// It is complete: the others are gone.
    pub fn listed(&self) {
        self.lock().retain(|_, known| known.is_listed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<EggKey, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::read::{egg_judged, egg_key};

    fn object(generation: i64, cidr: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg",
            "metadata": {"namespace": "shop", "name": "a", "uid": "u", "generation": generation},
            "spec": {"podSelector": {}, "egress": [{"to": [{"cidr": cidr}]}]},
        }))
        .unwrap()
    }

    fn read(judged: &Judged, object: &DynamicObject) -> Egg {
        judged.read(object, &egg_key(object).unwrap(), egg_judged).unwrap()
    }

    #[test]
    fn a_spec_is_judged_once_and_its_successor_anew() {
        let judged = Judged::default();
        let first = read(&judged, &object(1, "10.0.0.0/8"));
        // What is said of a generation stays, whatever comes with it.
        assert_eq!(read(&judged, &object(1, "nonsense")).spec, first.spec);
        assert!(read(&judged, &object(2, "nonsense")).spec.is_err());
        judged.forget(&first.key);
        assert!(read(&judged, &object(1, "10.0.0.0/8")).spec.is_ok());
    }

    #[test]
    fn what_is_not_in_a_list_is_forgotten() {
        let judged = Judged::default();
        read(&judged, &object(1, "10.0.0.0/8"));
        judged.listing();
        read(&judged, &object(1, "10.0.0.0/8"));
        judged.listed();
        assert_eq!(judged.lock().len(), 1);
        judged.listing();
        judged.listed();
        assert!(judged.lock().is_empty());
    }
}
