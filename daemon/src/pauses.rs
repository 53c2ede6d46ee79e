//! How long a watch that has failed waits before it tries again.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use kube::runtime::utils::Backoff;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// What fails so soon again has not been well in between.
const QUIET: Duration = Duration::from_secs(10);

/// Pauses that double with every failure in a row, each up to twice as long by chance. What a watch says in between makes no
/// difference: it says that a list begins before it has asked for it, so that each pause would be the first where lists are refused.
#[derive(Debug)]
pub struct Pauses {
    pauses: ExponentialBackoff,
    /// When the last pause ended.
    last: Option<Instant>,
}

impl Default for Pauses {
    fn default() -> Self {
        Pauses { pauses: from_the_beginning(), last: None }
    }
}

impl Pauses {
    fn next_at(&mut self, now: Instant) -> Option<Duration> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > QUIET) {
            self.pauses = from_the_beginning();
        }
        let pause = self.pauses.next()?;
        self.last = Some(now + pause);
        Some(pause)
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.next_at(Instant::now())
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {}
}

fn from_the_beginning() -> ExponentialBackoff {
    let pauses = ExponentialBuilder::default().with_min_delay(PAUSE_FIRST).with_max_delay(PAUSE_MOST);
    pauses.with_jitter().without_max_times().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_are_refused_are_asked_for_seldom() {
        let (mut now, mut pauses) = (Instant::now(), Pauses::default());
        let mut failures = |seconds: u64| {
            let end = now + Duration::from_secs(seconds);
            let mut count = 0;
            while now < end {
                now += pauses.next_at(now).unwrap();
                // "A list begins", says the watch.
                pauses.reset();
                count += 1;
            }
            count
        };
        assert!(failures(60) <= 6 + 12);
        assert!(failures(600) <= 120);
    }

    #[test]
    fn after_quiet_the_first_pause_is_short_again() {
        let (now, mut pauses) = (Instant::now(), Pauses::default());
        (0..10).for_each(|_| _ = pauses.next_at(now));
        let later = now + PAUSE_MOST * 2 + QUIET * 2;
        assert!(pauses.next_at(later).unwrap() <= PAUSE_FIRST * 2);
    }
}
