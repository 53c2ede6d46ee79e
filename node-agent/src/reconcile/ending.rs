//! What pods keep that are ending, or of which the rest of the news is on its way.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::Reconciler;
use crate::{
    datapath::{Datapath, EnforcedPod, NODE_UID},
    inventory::Counts,
};

/// For how long an agent that has just started leaves pods as they are because it does not know which are ending. Pods are listed in
/// a fraction of a second.
const LISTED_WITHIN: Duration = Duration::from_secs(10);

/// For how long an agent leaves pods alone that are ending. Their authors say how long that takes, up to years; so it is no way to be left
/// alone for good.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(3600);

/// For how long a pod without assignments stays as it is where Eggs are not told: it may be on its way from one to another, each of
/// which the operator writes on its own.
const MOVED_WITHIN: Duration = Duration::from_secs(2);

/// Pods that an agent before has left under a policy, of which it is not known that they are not ending.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) since: Instant,
    uids: BTreeSet<String>,
}

impl Found {
    /// All of these, now.
    pub(super) fn new(uids: impl Iterator<Item = String>) -> Self {
        Found { since: Instant::now(), uids: uids.collect() }
    }
}

impl<D: Datapath> Reconciler<D> {
    /// Whether a pod that is assigned no more is to keep what is in force for it.
    pub(super) fn until_end(&self, uid: &str) -> bool {
        let is_to_be_told = self.is_told_of_pods && !self.selected.is_complete() && uid != NODE_UID;
        let may_move = self.unassigned.get(uid).is_some_and(|since| since.elapsed() < MOVED_WITHIN);
        is_to_be_told || may_move || self.selected.until_end(uid)
    }

    /// Whether what is in force for a pod stays, whatever its assignments say: it is ending since before this agent, which does not
    /// know which of the pod's Eggs went before it.
    pub(super) fn is_left_alone(&self, uid: &str) -> bool {
        let waited = self.found.since.elapsed();
        let may_be_ending = match self.selected.knows_endings() {
            true => waited < LEFT_ALONE_FOR,
            false => waited < LISTED_WITHIN,
        };
        self.is_told_of_pods && may_be_ending && self.found.uids.contains(uid)
    }

    /// Sees which pods have no assignment any more, where only assignments tell of Eggs.
    pub(super) fn note_unassigned(&mut self, enforced: &[EnforcedPod], now: Instant) {
        if !self.is_told_of_pods || self.selected.is_told_of_eggs() || !self.desired.knows_all_pods {
            return;
        }
        let found = enforced.iter().map(|pod| &pod.uid).chain(self.older.keys());
        let unassigned = found.filter(|uid| *uid != NODE_UID && !self.desired.pods.contains_key(*uid));
        let since = |uid: &String| self.unassigned.get(uid).copied().unwrap_or(now);
        self.unassigned = unassigned.map(|uid| (uid.clone(), since(uid))).collect();
    }

    /// Forgets what Eggs said of pods that they select no more, unless it is to stay in force until the pod's end, or until what comes in
    /// its place is there.
    pub(super) fn heed_endings(&mut self, now: Instant) {
        if self.selected.knows_endings() {
            let Reconciler { found, selected, .. } = self;
            found.uids.retain(|uid| selected.is_ending(uid));
        }
        let Reconciler { inventory, selected, cgroups, .. } = self;
        let lists_come = self.is_told_of_pods && !selected.knows_endings();
        let forgotten = inventory.keep_departed(now, |inventory, uid, egg| {
            let is_over = cgroups.complete && !cgroups.pods.contains_key(uid);
            if is_over || uid == NODE_UID {
                return Counts::NoMore;
            }
            if lists_come || selected.is_ending(uid) || selected.selects(uid, egg) {
                return Counts::Still;
            }
            // Its other Eggs alone may allow more than both that which it leaves and that which it moves to, or less.
            let is_assigned_by = |egg: &String| inventory.is_assigned_by(egg, uid);
            if selected.eggs_of(uid).iter().all(is_assigned_by) {
                Counts::NoMore
            } else {
                Counts::UntilReplaced
            }
        });
        self.is_stale |= forgotten.any;
        forgotten.unreplaced.iter().for_each(|(uid, egg)| self.tell_unreplaced(uid, egg));
    }
}
