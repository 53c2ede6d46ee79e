//! Less for an API server that has too much to do. Without a clock of its own.
//!
//! What it refuses because of that says nothing of the one object, so all writes stop for a while. Then one goes ahead, and the others
//! follow when that was taken.

use std::time::{Duration, Instant};

/// The pause after a first refusal; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause, unless the API server asks for more: new pods are held for 10 s by default, and it is one request that goes ahead.
const LONGEST: Duration = Duration::from_secs(10);
/// Longest pause that the API server can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// Whether writes may be begun.
#[derive(Clone, Copy, Debug, Default)]
pub struct Brake {
    refusals: u32,
    open_at: Option<Instant>,
}

impl Brake {
    /// The API server refused a request because it has too much to do. `jitter`, from 0 to 1, keeps those apart who were refused
    /// together.
    pub fn refused(&mut self, now: Instant, retry_after: Option<Duration>, jitter: f64) {
        // One of many that were sent together: it is one refusal.
        if self.open_at.is_some_and(|open_at| now < open_at) {
            return;
        }
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.refusals.min(30))).min(LONGEST);
        let pause = pause.max(retry_after.unwrap_or_default().min(LONGEST_ASKED));
        self.refusals = self.refusals.saturating_add(1);
        self.open_at = Some(now + pause.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0));
    }

    /// The API server did what it was asked.
    pub fn accepted(&mut self, now: Instant) {
        // An answer from before the refusal is none to it.
        if self.open_at.is_some_and(|open_at| open_at <= now) {
            *self = Brake::default();
        }
    }

    /// When writes may be begun again, if that is not now.
    pub fn open_at(&self, now: Instant) -> Option<Instant> {
        self.open_at.filter(|open_at| *open_at > now)
    }

    /// How many may be on their way, of as many as usually.
    pub fn at_once(&self, usually: usize) -> usize {
        if self.refusals == 0 { usually } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses in milliseconds of an API server that refuses whatever goes ahead.
    fn pauses(count: usize, retry_after: Option<Duration>, jitter: f64) -> Vec<u128> {
        let (mut brake, mut now) = (Brake::default(), Instant::now());
        let pause = |_| {
            for _ in 0..32 {
                brake.refused(now, retry_after, jitter);
            }
            let open_at = brake.open_at(now).unwrap();
            let pause = open_at - now;
            now = open_at;
            assert_eq!(brake.open_at(now), None);
            pause.as_millis()
        };
        (0..count).map(pause).collect()
    }

    #[test]
    fn later_and_later_and_as_late_as_asked() {
        assert_eq!(pauses(6, None, 0.0), [1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(pauses(2, None, 1.0), [1250, 2500]);
        assert_eq!(pauses(3, Some(Duration::from_secs(3)), 0.0), [3000, 3000, 4000]);
        assert_eq!(pauses(1, Some(Duration::from_secs(3600)), 0.0), [30_000]);
    }

    #[test]
    fn one_goes_ahead_and_the_others_follow_when_it_was_taken() {
        let now = Instant::now();
        let mut brake = Brake::default();
        assert_eq!(brake.at_once(32), 32);
        brake.refused(now, None, 0.0);
        brake.accepted(now);
        let open_at = brake.open_at(now).expect("an answer from before opens nothing");
        assert_eq!((brake.open_at(open_at), brake.at_once(32)), (None, 1));
        brake.accepted(open_at);
        assert_eq!(brake.at_once(32), 32);
        brake.refused(open_at, None, 0.0);
        assert_eq!(brake.open_at(open_at), Some(open_at + FIRST), "from the beginning");
    }
}
