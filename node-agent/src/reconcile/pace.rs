//! How much of a pass bandwidth limits may take: each loads a program, for tens of milliseconds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// So long in one pass; then the next one goes on.
const IN_A_PASS: Duration = Duration::from_millis(50);
/// A failure that took longer is not tried again at once.
const DEAR: Duration = Duration::from_millis(5);
const AFTER_DEAR: Duration = Duration::from_secs(10);

/// What was spent, and on whom.
#[derive(Debug, Default)]
pub(super) struct ShapingPace {
    spent: Duration,
    is_unfinished: bool,
    /// Pods whose limits failed, and took long to do so, by uid: when they are tried again.
    later: BTreeMap<String, Instant>,
}

impl ShapingPace {
    /// A pass begins.
    pub(super) fn begin(&mut self) {
        self.spent = Duration::ZERO;
        self.is_unfinished = false;
    }

    /// Whether there is time for this pod.
    pub(super) fn may(&mut self, uid: &str) -> bool {
        if self.later.get(uid).is_some_and(|at| *at > Instant::now()) {
            return false;
        }
        self.is_unfinished |= self.spent >= IN_A_PASS;
        self.spent < IN_A_PASS
    }

    /// It took so long, and may have failed.
    pub(super) fn took(&mut self, uid: &str, time: Duration, failed: bool) {
        self.spent += time;
        if failed && time > DEAR {
            self.later.insert(uid.to_owned(), Instant::now() + AFTER_DEAR);
        } else {
            self.later.remove(uid);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_does_what_it_has_time_for() {
        let mut pace = ShapingPace::default();
        pace.begin();
        assert!(pace.may("a") && !pace.is_unfinished());
        pace.took("a", IN_A_PASS, false);
        assert!(!pace.may("b") && pace.is_unfinished());
        pace.begin();
        assert!(pace.may("b") && !pace.is_unfinished());
    }

    #[test]
    fn what_fails_at_length_is_not_tried_at_once() {
        let mut pace = ShapingPace::default();
        pace.begin();
        pace.took("cheap", DEAR, true);
        pace.took("dear", DEAR * 2, true);
        assert!(pace.may("cheap") && !pace.may("dear") && !pace.is_unfinished());
        pace.retain(|_| false);
        assert!(pace.may("dear"));
    }
}
