//! How much of a pass may be taken by what takes long: bandwidth limits, each of which loads a program, for tens of milliseconds; and
//! policies that cannot be enforced, which may be found out when most of them is written.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::datapath::Digest;

/// So long in one pass; then the next one goes on.
const IN_A_PASS: Duration = Duration::from_millis(50);
/// A failure that took longer is dear.
const DEAR: Duration = Duration::from_millis(5);
/// When what failed is tried again: at first soon, then after twice as long each time, and at last every so often.
const SOON: Duration = Duration::from_millis(100);
const AFTER_CHEAP: Duration = Duration::from_secs(1);
const AFTER_DEAR: Duration = Duration::from_secs(10);

/// What was spent, and on whom.
#[derive(Debug, Default)]
pub(super) struct ShapingPace {
    spent: Duration,
    is_unfinished: bool,
    /// Pods whose limits failed, by uid.
    later: BTreeMap<String, Later>,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Done,
    /// The pod has no network yet; it has one soon.
    NotYet,
    Failed,
}

/// When a pod is tried again, and how long after the last time that is.
#[derive(Debug)]
struct Later {
    at: Instant,
    pause: Duration,
}

impl ShapingPace {
    /// A pass begins.
    pub(super) fn begin(&mut self) {
        self.spent = Duration::ZERO;
        self.is_unfinished = false;
    }

    /// Whether this pod has failed the last time: others come first.
    pub(super) fn has_failed(&self, uid: &str) -> bool {
        self.later.contains_key(uid)
    }

    /// Whether there is time for this pod.
    pub(super) fn may(&mut self, uid: &str, now: Instant) -> bool {
        if self.later.get(uid).is_some_and(|later| later.at > now) {
            return false;
        }
        self.is_unfinished |= self.spent >= IN_A_PASS;
        self.spent < IN_A_PASS
    }

    /// It took so long, until now.
    pub(super) fn took(&mut self, uid: &str, time: Duration, attempt: Attempt, now: Instant) {
        self.spent += time;
        if attempt == Attempt::Done {
            self.later.remove(uid);
            return;
        }
        // Many that wait for their network would else use up every pass.
        let pause = match self.later.get(uid) {
            _ if attempt == Attempt::Failed && time > DEAR => AFTER_DEAR,
            Some(later) => (later.pause * 2).min(AFTER_CHEAP),
            None => SOON,
        };
        self.later.insert(uid.to_owned(), Later { at: now + pause, pause });
    }

    /// Whether some pod has still to get its limit.
    pub(super) fn is_unfinished(&self) -> bool {
        self.is_unfinished
    }

    /// Forgets the others.
    pub(super) fn retain(&mut self, is_known: impl Fn(&String) -> bool) {
        self.later.retain(|uid, _| is_known(uid));
    }
}

/// Pods whose policy could not be enforced, which took long: it is not tried at every turn.
#[derive(Debug, Default)]
pub(super) struct EnforcePace {
    rests: BTreeMap<String, (Digest, Instant)>,
}

impl EnforcePace {
    /// Whether it is tried again later: the same policy.
    pub(super) fn rests(&self, uid: &str, policy: &Digest, now: Instant) -> bool {
        self.rests.get(uid).is_some_and(|(failed, until)| failed == policy && now < *until)
    }

    /// It has failed, after so long.
    pub(super) fn failed(&mut self, uid: &str, policy: Digest, time: Duration, now: Instant) {
        if time > DEAR {
            // A tenth of all time at most.
            self.rests.insert(uid.to_owned(), (policy, now + (time * 10).max(AFTER_CHEAP)));
        }
    }

    /// Forgets the others.
    pub(super) fn retain(&mut self, is_known: impl Fn(&String) -> bool) {
        self.rests.retain(|uid, _| is_known(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_policy_that_fails_slowly_rests_and_another_is_tried_at_once() {
        let (mut pace, now) = (EnforcePace::default(), Instant::now());
        pace.failed("cheap", [1; 32], DEAR, now);
        pace.failed("dear", [1; 32], MS * 20, now);
        pace.failed("dearer", [1; 32], MS * 300, now);
        assert!(!pace.rests("cheap", &[1; 32], now));
        let rests = |after: u32| {
            [pace.rests("dear", &[1; 32], now + MS * after), pace.rests("dearer", &[1; 32], now + MS * after)]
        };
        assert_eq!(
            [rests(0), rests(999), rests(1000), rests(3000)],
            [[true; 2], [true; 2], [false, true], [false; 2]]
        );
        assert!(!pace.rests("dear", &[2; 32], now), "an edit");
        pace.retain(|uid| uid != "dear");
        assert!(!pace.rests("dear", &[1; 32], now) && pace.rests("dearer", &[1; 32], now));
    }

    #[test]
    fn a_pass_does_what_it_has_time_for() {
        let (mut pace, now) = (ShapingPace::default(), Instant::now());
        pace.begin();
        assert!(pace.may("a", now) && !pace.is_unfinished());
        pace.took("a", IN_A_PASS, Attempt::Done, now);
        assert!(!pace.may("b", now) && pace.is_unfinished());
        pace.begin();
        assert!(pace.may("b", now) && !pace.is_unfinished());
    }

    #[test]
    fn what_fails_is_not_tried_at_once() {
        let (mut pace, now) = (ShapingPace::default(), Instant::now());
        let pause = |pace: &ShapingPace, uid: &str| pace.later[uid].pause;
        pace.took("dear", DEAR * 2, Attempt::Failed, now);
        pace.took("slow", DEAR * 2, Attempt::NotYet, now);
        assert_eq!((pause(&pace, "dear"), pause(&pace, "slow")), (AFTER_DEAR, SOON));
        for expected in [SOON, SOON * 2, SOON * 4, SOON * 8, AFTER_CHEAP, AFTER_CHEAP] {
            pace.took("cheap", DEAR, Attempt::Failed, now);
            assert_eq!(pause(&pace, "cheap"), expected);
        }
        pace.begin();
        assert!(!pace.may("cheap", now) && !pace.may("dear", now) && !pace.is_unfinished());
        assert!(pace.may("cheap", now + AFTER_CHEAP) && pace.has_failed("cheap"));
        pace.took("cheap", DEAR, Attempt::Done, now);
        assert!(pace.may("cheap", now) && !pace.has_failed("cheap"));
        pace.retain(|_| false);
        assert!(pace.may("dear", now));
    }

    #[test]
    fn pods_that_wait_for_their_network_keep_nobody_waiting() {
        let (mut pace, now) = (ShapingPace::default(), Instant::now());
        let waiting: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        let tried = |pace: &mut ShapingPace| {
            pace.begin();
            let tried = waiting.iter().filter(|uid| {
                let may = pace.may(uid, now);
                if may {
                    pace.took(uid, MS, Attempt::NotYet, now);
                }
                may
            });
            tried.count()
        };
        assert_eq!([(); 5].map(|()| tried(&mut pace)), [50, 50, 50, 50, 0]);
        assert!(pace.may("another", now) && !pace.is_unfinished(), "the loop rests");
    }
}
