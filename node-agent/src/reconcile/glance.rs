//! What cannot wait for the next pass: which containers are being made, and the networks of new pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::{Duration, Instant},
};

use super::Reconciler;
use crate::{
    cgroup::has_children,
    datapath::{Datapath, EnforcedPod, NODE_UID},
};

/// How often a container that is being made is looked at, until it is known which one it is. Between the moment at which a runtime
/// has mounted everything and the start of the program lie tens of milliseconds.
const NAMING: Duration = Duration::from_millis(3);
/// How often a new pod is looked at, until its network is found. The runtime makes it before it makes the first container, and until it
/// is found frames are not judged, and what answers in networks of the pod's own making is believed.
const WIRING: Duration = Duration::from_millis(10);
/// So long that is done: where no sandbox can be made, it is looked at in every pass.
pub(super) const NEW_FOR: Duration = Duration::from_secs(30);
/// So much time goes into it at once. To attach to an interface takes tens of milliseconds, most of them the kernel's waiting for others.
const AT_ONCE: Duration = Duration::from_millis(5);
/// The same of pods that are not new, in a pass.
const IN_A_PASS: Duration = Duration::from_millis(50);

/// Whose networks are to be looked for.
#[derive(Debug, Default)]
pub(super) struct Wiring {
    /// Since when pods have been waiting for it, by uid.
    new: BTreeMap<String, Instant>,
    /// Who was looked at last of these.
    last: String,
    /// Those that have yet to be looked at in this round.
    others: Vec<String>,
    /// Those whose network has ended, once it has been looked for another one.
    lost: BTreeSet<String>,
    /// Ids of the cgroups in which it is told what comes and goes, by uid.
    followed: BTreeMap<String, u64>,
}

impl Wiring {
    /// A pod's programs are attached.
    pub(super) fn begin(&mut self, uid: &str, now: Instant) {
        self.new.entry(uid.to_owned()).or_insert(now);
    }

    /// Its network has ended. The next one is looked for like that of a new pod, unless nothing is left of this one: most have just
    /// ended.
    pub(super) fn lose(&mut self, uid: &str, now: Instant, is_anything_left: impl FnOnce() -> bool) {
        if self.lost.insert(uid.to_owned()) && is_anything_left() {
            self.begin(uid, now);
        }
    }

    /// Something comes or goes in some pod: it may be the next sandbox, however late.
    fn look_again(&mut self, now: Instant, has_anything: impl Fn(&str) -> bool) {
        let again = self.lost.iter().filter(|uid| has_anything(uid));
        self.new.extend(again.map(|uid| (uid.clone(), now)));
    }

    /// Its network is found, or it has none to be found: since when that was looked for.
    pub(super) fn end(&mut self, uid: &str) -> Option<Instant> {
        self.lost.remove(uid);
        self.new.remove(uid)
    }

    /// A pod's network is to be looked for before that of others that are not new.
    pub(super) fn hasten(&mut self, uid: &str) {
        self.others.push(uid.to_owned());
    }

    /// Whether some have still to be looked at.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.others.is_empty()
    }

    /// Forgets the others.
    pub(super) fn retain(&mut self, is_known: impl Fn(&str) -> bool, now: Instant) {
        self.lost.retain(|uid| is_known(uid));
        self.followed.retain(|uid, _| is_known(uid));
        self.new.retain(|uid, since| is_known(uid) && now.saturating_duration_since(*since) < NEW_FOR);
    }

    /// The new ones, from the one behind the last on.
    fn in_turn(&self) -> Vec<String> {
        let behind = self.new.range::<str, _>((Bound::Excluded(self.last.as_str()), Bound::Unbounded));
        let before = self.new.range::<str, _>((Bound::Unbounded, Bound::Included(self.last.as_str())));
        behind.chain(before).map(|(uid, _)| uid.clone()).collect()
    }
}

impl<D: Datapath> Reconciler<D> {
    /// How soon there is something to be looked at, whatever comes.
    pub(super) fn glance_in(&self) -> Duration {
        match (self.cgroups.awaits_names(), self.wiring.new.is_empty()) {
            (true, _) => NAMING,
            (false, false) => WIRING,
            (false, true) => Duration::MAX,
        }
    }

    /// Looks at it. True if a pass has something to do by that.
    pub(super) fn glance(&mut self) -> bool {
        self.cover_new();
        self.cgroups.awaits_names() && self.look_into_pods()
    }

    /// Puts the backstop where these pods' networks are, as far as there is time: new pods do not wait for it.
    pub(super) fn cover_all(&mut self, enforced: &[EnforcedPod]) {
        self.follow_all(enforced);
        self.cover_new();
        let uids: BTreeSet<&str> = enforced.iter().map(|pod| pod.uid.as_str()).collect();
        if self.wiring.others.is_empty() {
            self.wiring.others = uids.iter().rev().map(|uid| (*uid).to_owned()).collect();
        }
        let start = Instant::now();
        while let Some(uid) = self.wiring.others.pop() {
            if uids.contains(uid.as_str()) && !self.wiring.new.contains_key(&uid) {
                self.cover(&uid);
            }
            if start.elapsed() >= IN_A_PASS {
                return;
            }
        }
    }

    /// Something comes or goes in some pod.
    pub(super) fn look_for_sandboxes(&mut self) {
        let Reconciler { wiring, cgroups, .. } = self;
        let has_anything = |uid: &str| cgroups.pods.get(uid).is_some_and(|it| has_children(&it.path));
        wiring.look_again(Instant::now(), has_anything);
    }

    /// Is told of what comes and goes in these pods: a sandbox that ends, and the next one, whose containers start soon after it.
    fn follow_all(&mut self, enforced: &[EnforcedPod]) {
        let Some(follower) = &mut self.follower else { return };
        for EnforcedPod { uid, .. } in enforced.iter().filter(|pod| pod.uid != NODE_UID) {
            let Some(cgroup) = self.cgroups.pods.get(uid) else { continue };
            if self.wiring.followed.insert(uid.clone(), cgroup.id) != Some(cgroup.id) {
                follower.follow(&cgroup.path);
            }
        }
    }

    fn cover_new(&mut self) {
        let start = Instant::now();
        for uid in self.wiring.in_turn() {
            self.cover(&uid);
            self.wiring.last = uid;
            if start.elapsed() >= AT_ONCE {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_network_is_looked_for_once_and_again_when_something_comes() {
        let (mut wiring, start) = (Wiring::default(), Instant::now());
        wiring.lose("a", start, || true);
        wiring.lose("b", start, || false);
        assert_eq!(wiring.in_turn(), ["a"], "nothing is left of b");
        let later = start + NEW_FOR;
        wiring.retain(|_| true, later);
        wiring.lose("a", later, || true);
        assert!(wiring.in_turn().is_empty(), "it has had its time");
        wiring.look_again(later, |uid| uid == "b");
        assert_eq!(wiring.in_turn(), ["b"]);
        assert!(wiring.end("b").is_some());
        wiring.end("a");
        wiring.lose("a", later, || true);
        assert_eq!(wiring.in_turn(), ["a"], "another one is lost");
        wiring.retain(|_| false, later);
        assert!(wiring.lost.is_empty());
    }

    #[test]
    fn new_pods_take_turns_until_they_are_found_or_old() {
        let (mut wiring, start) = (Wiring::default(), Instant::now());
        ["a", "b", "c"].iter().for_each(|uid| wiring.begin(uid, start));
        assert_eq!(wiring.in_turn(), ["a", "b", "c"]);
        wiring.last = "a".into();
        assert_eq!(wiring.in_turn(), ["b", "c", "a"]);
        assert_eq!([wiring.end("b"), wiring.end("b")], [Some(start), None]);
        wiring.last = "b".into();
        assert_eq!(wiring.in_turn(), ["c", "a"]);
        wiring.begin("d", start + NEW_FOR / 2);
        wiring.retain(|uid| uid != "c", start + NEW_FOR / 2);
        assert_eq!(wiring.in_turn(), ["d", "a"]);
        wiring.begin("a", start + NEW_FOR / 2);
        wiring.retain(|_| true, start + NEW_FOR);
        assert_eq!(wiring.in_turn(), ["d"], "a has had its time");
    }
}
