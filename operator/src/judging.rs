//! Eggs on the way from the watch to the index. Each spec is judged once, and beside all else: to judge patterns can take
//! seconds, and their author decides how often. Plain data; who drives it judges what [`Judging::next_job`] gives out.
//!
//! Of an Egg that waits only what was told last is judged, and namespaces take turns. An Egg that is edited again and again is
//! judged later and later; what is in force for it stays meanwhile.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use sha2::{Digest, Sha256};

use crate::index::{Accepted, Egg, EggKey, Rejection};
use crate::pace::{Limits, Paces};
use crate::read::{as_judged, guarded};
use crate::watch::Change;

/// How often one Egg is judged.
static LIMITS: Limits = Limits {
    free: 5,
    first: Duration::from_millis(100),
    longest: Duration::from_secs(1),
    quiet: Duration::from_secs(10),
};

/// What is said of a spec.
pub type Judgement = Result<Accepted, Rejection>;

/// The Eggs, or ClusterEggs, that there are.
#[derive(Debug)]
pub struct Judging {
    key: fn(&DynamicObject) -> Option<EggKey>,
    eggs: HashMap<EggKey, State>,
    /// Also of Eggs that are gone, as the following three: they may come back.
    paces: Paces<EggKey>,
    quiet_is_forgotten_at: Option<Instant>,
    running: HashSet<EggKey>,
    /// Eggs in one of the lines or among the timers.
    in_line: HashSet<EggKey>,
    /// Eggs that wait, by namespace.
    lines: HashMap<Option<String>, VecDeque<EggKey>>,
    turns: VecDeque<Option<String>>,
    /// Eggs that were judged too often of late.
    timers: BTreeSet<(Instant, EggKey)>,
}

#[derive(Debug, Default)]
struct State {
    uid: Option<String>,
    /// What was said last, and of which spec.
    known: Option<(SpecHash, Judgement)>,
    /// The Egg as it was told last, while it is not judged.
    waiting: Option<(SpecHash, Arc<DynamicObject>)>,
    /// Whether it was in the list that is being told.
    is_listed: bool,
}

/// Not the generation: where etcd is restored from a backup, generations come a second time.
type SpecHash = [u8; 32];

/// An Egg to be judged.
#[derive(Debug)]
pub struct Job {
    /// Which one.
    pub key: EggKey,
    /// The Egg as it was told last.
    pub object: Arc<DynamicObject>,
    spec: SpecHash,
}

/// A job that is done.
#[derive(Debug)]
pub struct Judged {
    key: EggKey,
    spec: SpecHash,
    judgement: Judgement,
}

impl Job {
    /// What `judge` says of it.
    pub fn done(self, judge: impl FnOnce(&EggKey, &serde_json::Value) -> Judgement) -> Judged {
        let judgement = judge(&self.key, &self.object.data["spec"]);
        Judged { key: self.key, spec: self.spec, judgement }
    }
}

impl Judging {
    /// Without Eggs. `key` says which Egg an object is.
    pub fn new(key: fn(&DynamicObject) -> Option<EggKey>) -> Self {
        Judging {
            key,
            eggs: HashMap::new(),
            paces: Paces::default(),
            quiet_is_forgotten_at: None,
            running: HashSet::new(),
            in_line: HashSet::new(),
            lines: HashMap::new(),
            turns: VecDeque::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Takes in what the watch tells; what of it is news for the index.
    pub fn told(&mut self, event: Event<DynamicObject>) -> Vec<Change<Egg, EggKey>> {
        match event {
            Event::Init => {
                self.eggs.values_mut().for_each(|state| state.is_listed = false);
                vec![Change::Listing]
            }
            Event::InitDone => {
                // Said of each: one that was judged while the list was told looks as if it had been in it.
                let gone = self.eggs.extract_if(|_, state| !state.is_listed);
                gone.map(|(key, _)| Change::Gone(key)).chain([Change::Listed]).collect()
            }
            Event::Apply(object) | Event::InitApply(object) => self.is_there(object),
            Event::Delete(object) => (self.key)(&object).map(|key| self.is_gone(key)).into_iter().collect(),
        }
    }

    fn is_gone(&mut self, key: EggKey) -> Change<Egg, EggKey> {
        self.eggs.remove(&key);
        Change::Gone(key)
    }

    fn is_there(&mut self, object: DynamicObject) -> Vec<Change<Egg, EggKey>> {
        // An object without a name is none that the API server could have.
        let Some(key) = (self.key)(&object) else { return Vec::new() };
        // It may wait for finalizers of others; what it asked for ends with the order to delete it.
        if object.metadata.deletion_timestamp.is_some() {
            return vec![self.is_gone(key)];
        }
        let mut changes = Vec::new();
        let uid = object.metadata.uid.clone();
        if self.eggs.get(&key).is_some_and(|state| state.uid != uid) {
            // Another Egg of the same name: what is in force is not its own.
            changes.push(self.is_gone(key.clone()));
        }
        let spec = spec_hash(&object);
        let state = self.eggs.entry(key.clone()).or_default();
        (state.uid, state.is_listed) = (uid, true);
        if let Some((_, judgement)) = state.known.as_ref().filter(|(known, _)| *known == spec) {
            state.waiting = None;
            changes.push(change(&object, key, judgement.clone()));
            return changes;
        }
        state.waiting = Some((spec, Arc::new(object)));
        changes.push(Change::Present(key.clone()));
        self.line_up(key);
        changes
    }

    fn line_up(&mut self, key: EggKey) {
        if self.in_line.insert(key.clone()) {
            self.join_line(key);
        }
    }

    fn join_line(&mut self, key: EggKey) {
        let line = self.lines.entry(key.namespace.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(key.namespace.clone());
        }
        line.push_back(key);
    }

    /// The next Egg to be judged now.
    pub fn next_job(&mut self, now: Instant) -> Option<Job> {
        if self.quiet_is_forgotten_at.is_none_or(|due| due <= now) {
            self.paces.forget_quiet(now);
            self.quiet_is_forgotten_at = Some(now + LIMITS.quiet);
        }
        while let Some((due, _)) = self.timers.first()
            && *due <= now
            && let Some((_, key)) = self.timers.pop_first()
        {
            self.join_line(key);
        }
        while let Some(namespace) = self.turns.pop_front() {
            let Some(line) = self.lines.get_mut(&namespace) else { continue };
            let key = line.pop_front();
            if line.is_empty() {
                self.lines.remove(&namespace);
            } else {
                self.turns.push_back(namespace);
            }
            let Some(key) = key else { continue };
            let waiting = self.eggs.get(&key).and_then(|state| state.waiting.clone());
            if let (Some(due), Some(_)) = (self.paces.wait(&key, &LIMITS, now), &waiting) {
                self.timers.insert((due, key));
                continue;
            }
            self.in_line.remove(&key);
            // One that is being judged lines up again when that is done.
            if let Some((spec, object)) = waiting
                && self.running.insert(key.clone())
            {
                self.paces.done(key.clone(), &LIMITS, now);
                return Some(Job { key, object, spec });
            }
        }
        None
    }

    /// When there may be a next one, if there is none now.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Takes in what was said of an Egg; the Egg for the index, if that is what was told of it last.
    pub fn judged(&mut self, judged: Judged) -> Option<Change<Egg, EggKey>> {
        let Judged { key, spec, judgement } = judged;
        self.running.remove(&key);
        let state = self.eggs.get_mut(&key)?;
        let (waiting, object) = state.waiting.clone()?;
        if waiting != spec {
            self.line_up(key);
            return None;
        }
        state.waiting = None;
        state.known = Some((spec, judgement.clone()));
        Some(change(&object, key, judgement))
    }
}

fn change(object: &DynamicObject, key: EggKey, judgement: Judgement) -> Change<Egg, EggKey> {
    match guarded(|| as_judged(object, key.clone(), judgement)) {
        Ok(egg) => egg.map_or(Change::Gone(key), Change::Set),
        Err(panic) => {
            tracing::error!(egg = %key, panic, "cannot be read, which is a fault of the operator: please report it");
            Change::Present(key)
        }
    }
}

fn spec_hash(object: &DynamicObject) -> SpecHash {
    Sha256::digest(object.data["spec"].to_string()).into()
}

#[cfg(test)]
mod tests;
