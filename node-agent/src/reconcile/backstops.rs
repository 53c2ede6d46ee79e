//! Others change the filters of interfaces that have a backstop: it is looked at as soon as the kernel tells of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::Reconciler;
use crate::datapath::{Datapath, Mended};

/// So long after a backstop was put back nothing hastens: what comes meanwhile is looked at with the rest, every other second. Another
/// that wants to be the first one as well would be answered for ever.
const PAUSE: Duration = Duration::from_secs(2);

/// Which pods' backstops are looked at when, and what was said of them.
#[derive(Debug, Default)]
pub(super) struct Backstops {
    put_back_at: BTreeMap<String, Instant>,
    /// Of whom something was told in their pause.
    later: BTreeSet<String>,
    told_removed: BTreeSet<String>,
    told_overtaken: BTreeSet<String>,
}

impl Backstops {
    /// Forgets the others.
    pub(super) fn retain(&mut self, is_known: impl Fn(&String) -> bool) {
        self.told_removed.retain(&is_known);
        self.told_overtaken.retain(&is_known);
    }

    /// Which of these are to be looked at now.
    fn now(&mut self, told: BTreeSet<String>, now: Instant) -> BTreeSet<String> {
        self.put_back_at.retain(|_, at| now.saturating_duration_since(*at) < PAUSE);
        let (at_once, later): (BTreeSet<_>, BTreeSet<_>) =
            told.into_iter().partition(|uid| !self.put_back_at.contains_key(uid));
        self.later.extend(later);
        at_once
    }
}

impl<D: Datapath> Reconciler<D> {
    /// Filters of these interfaces have changed. True if a pass has something to do by that; most of what comes is of the agent's own
    /// doing, or of the plugin that makes a pod's network.
    pub(super) fn heed_filters(&mut self, interfaces: &BTreeSet<u32>, now: Instant) -> bool {
        let told = self.datapath.pods_at(interfaces);
        let uids = self.backstops.now(told, now);
        self.look_at_backstops(&uids, now)
    }

    /// Looks at those that had to wait.
    pub(super) fn look_at_later(&mut self, now: Instant) {
        let later = std::mem::take(&mut self.backstops.later);
        self.look_at_backstops(&later, now);
    }

    fn look_at_backstops(&mut self, uids: &BTreeSet<String>, now: Instant) -> bool {
        if uids.is_empty() {
            return false;
        }
        let mended = self.datapath.mend_backstops(uids);
        self.tell_overtaken(&mended);
        for uid in &mended.backstops {
            if self.backstops.told_removed.insert(uid.clone()) {
                tracing::warn!(
                    uid,
                    "another program removes the backstop from the pod's interfaces: it is put back at once, each time"
                );
            }
        }
        for uid in mended.backstops.iter().chain(mended.overtaken.keys()) {
            self.backstops.put_back_at.insert(uid.clone(), now);
            self.wiring.hasten(uid);
        }
        !(mended.backstops.is_empty() && mended.overtaken.is_empty())
    }

    /// Once for each pod: who does so may do it again and again.
    pub(super) fn tell_overtaken(&mut self, mended: &Mended) {
        for (uid, other) in &mended.overtaken {
            if self.backstops.told_overtaken.insert(uid.clone()) {
                tracing::warn!(
                    uid,
                    other,
                    "another program was put before the pod's backstop, which does not see what that one decides about: the backstop is moved before it, each time"
                );
            } else {
                tracing::debug!(uid, other, "the pod's backstop is moved before another program again");
            }
        }
    }
}
