//! What another version left, and when it goes.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::Reconciler;
use crate::{causes::causes, datapath::Datapath};

/// What could not be removed stays so long before it is tried again: passes can follow one another within milliseconds.
const REST: Duration = Duration::from_secs(1);

/// How removing it has gone.
#[derive(Debug, Default)]
pub(super) struct Retirement {
    rest_until: Option<Instant>,
    told: Option<String>,
}

impl Retirement {
    fn rests(&self, now: Instant) -> bool {
        self.rest_until.is_some_and(|until| now < until)
    }

    /// Tells of each error once, until it has gone well or another way.
    fn took(&mut self, error: Option<String>, now: Instant) {
        self.rest_until = error.as_ref().map(|_| now + REST);
        if let Some(error) = error.as_ref().filter(|error| self.told.as_ref() != Some(error)) {
            tracing::warn!(error, "what another version left could not be removed; tried again every second");
        }
        self.told = error;
    }
}

impl<D: Datapath> Reconciler<D> {
    /// What another version left goes when nothing rests on it any more.
    pub(super) fn retire_older(&mut self) {
        let now = Instant::now();
        if !self.desired.knows_all_pods || self.retirement.rests(now) {
            return;
        }
        let pods = &self.desired.pods;
        let held = &self.held;
        let is_over = |uid: &str| self.cgroups.complete && !self.cgroups.pods.contains_key(uid);
        let until_end: BTreeSet<&str> = self
            .older
            .keys()
            .map(String::as_str)
            .filter(|uid| !is_over(uid) && self.until_end(uid))
            .collect();
        // One that was let go is told to be free, though it may be assigned what cannot be read.
        let let_go = self.holds.let_go();
        let is_wanted = |uid: &str| {
            held.contains_key(uid)
                || !let_go.contains_key(uid) && (pods.contains_key(uid) || until_end.contains(uid))
        };
        let retired = self.datapath.retire_older(&is_wanted);
        let unwanted: Vec<String> = self.older.keys().filter(|uid| !is_wanted(uid)).cloned().collect();
        self.retirement.took(retired.err().map(|error| causes(&error)), now);
        unwanted.iter().for_each(|uid| {
            self.older.remove(uid);
        });
        // Whom nothing restricts any more the node's own Eggs do.
        if !unwanted.is_empty() {
            self.part(&[]);
        }
    }
}
