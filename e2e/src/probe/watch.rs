//! Watches a destination: tries it again and again on fresh sockets, and reports each change.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Outcome, Target, connect, now_micros};

/// From this moment on the destination is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Wall clock in microseconds of when the first try with this outcome ended.
    pub at: u64,
    /// How many tries had ended with the outcome before.
    pub tries: u64,
    /// The outcome.
    pub outcome: Outcome,
}

/// Tries `target` every `interval` for as long as `go_on` says, and calls `changed` with the first outcome and
/// with each that differs from the one before. UDP targets are the ones to watch: their denial is immediate.
pub fn watch(
    target: &Target,
    interval: Duration,
    timeout: Duration,
    mut changed: impl FnMut(Change),
    mut go_on: impl FnMut() -> bool,
) {
    let mut last: Option<Outcome> = None;
    let mut tries = 0;
    while go_on() {
        let began = Instant::now();
        let outcome = connect(target, timeout).outcome;
        if last.as_ref() != Some(&outcome) {
            changed(Change { at: now_micros(), tries, outcome: outcome.clone() });
            last = Some(outcome);
            tries = 0;
        }
        tries += 1;
        std::thread::sleep(interval.saturating_sub(began.elapsed()));
    }
}
