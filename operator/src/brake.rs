//! Less for an API server that has too much to do. Without a clock of its own.
//!
//! What it refuses because of that says nothing of the one object, so all writes stop for a while. Then one goes ahead, and the others
//! follow when that was taken. What was on its way before the refusal holds nobody up, and its answers say nothing new.

use std::time::{Duration, Instant};

/// The pause after a first refusal; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause, unless the API server asks for more: new pods are held for 10 s by default, and it is one request that goes ahead.
const LONGEST: Duration = Duration::from_secs(8);
/// Longest pause that the API server can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// Whether writes may be begun.
#[derive(Clone, Copy, Debug, Default)]
pub struct Brake {
    refusals: u32,
    /// When the last refusal was heard that counted.
    closed_at: Option<Instant>,
    open_at: Option<Instant>,
}

impl Brake {
    /// The API server refused a request, begun then, because it has too much to do; whether that is news. `jitter`, from 0 to 1,
    /// keeps those apart who were refused together: what is chosen here is less by up to a quarter, and what the API server asks
    /// for, more.
    pub fn refused(
        &mut self,
        begun: Instant,
        now: Instant,
        retry_after: Option<Duration>,
        jitter: f64,
    ) -> bool {
        // One of many that were sent together: it is one refusal.
        if !self.is_since(begun) {
            return false;
        }
        let jitter = jitter.clamp(0.0, 1.0) / 4.0;
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.refusals.min(30))).min(LONGEST);
        let asked = retry_after.unwrap_or_default().min(LONGEST_ASKED);
        self.refusals = self.refusals.saturating_add(1);
        self.closed_at = Some(now);
        self.open_at = Some(now + pause.mul_f64(1.0 - jitter).max(asked.mul_f64(1.0 + jitter)));
        true
    }

    /// The API server did what it was asked by a request that was begun then.
    pub fn accepted(&mut self, begun: Instant) {
        // An answer to what was sent before the refusal is none to it.
        if self.is_since(begun) {
            (self.refusals, self.open_at) = (0, None);
        }
    }

    /// When writes may be begun again, if that is not now.
    pub fn open_at(&self, now: Instant) -> Option<Instant> {
        self.open_at.filter(|open_at| *open_at > now)
    }

    /// Whether one more may be on its way, of as many as usually, beside those begun then.
    pub fn has_room(&self, begun: &[Instant], usually: usize) -> bool {
        match self.refusals {
            0 => begun.len() < usually,
            // One that the API server never answers would stop all until it is given up.
            _ => !begun.iter().any(|begun| self.is_since(*begun)),
        }
    }

    /// None is begun while writes are stopped.
    fn is_since(&self, begun: Instant) -> bool {
        self.closed_at.is_none_or(|closed_at| begun > closed_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses in milliseconds of an API server that refuses whatever goes ahead.
    fn pauses(count: usize, retry_after: Option<Duration>, jitter: f64) -> Vec<u128> {
        let (mut brake, mut now) = (Brake::default(), Instant::now());
        let pause = |_| {
            let begun = now;
            for number in 0..32 {
                now += Duration::from_millis(number);
                assert_eq!(brake.refused(begun, now, retry_after, jitter), number == 0);
            }
            let open_at = brake.open_at(begun).unwrap();
            now = open_at;
            assert_eq!(brake.open_at(now), None);
            (open_at - begun).as_millis()
        };
        (0..count).map(pause).collect()
    }

    #[test]
    fn later_and_later_and_as_late_as_asked() {
        assert_eq!(pauses(6, None, 0.0), [1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(pauses(5, None, 1.0), [750, 1500, 3000, 6000, 6000]);
        assert_eq!(pauses(3, Some(Duration::from_secs(3)), 0.0), [3000, 3000, 4000]);
        assert_eq!(pauses(1, Some(Duration::from_secs(4)), 1.0), [5000]);
        assert_eq!(pauses(1, Some(Duration::from_secs(3600)), 0.0), [30_000]);
    }

    #[test]
    fn one_goes_ahead_and_the_others_follow_when_it_was_taken() {
        let begun = Instant::now();
        let now = begun + Duration::from_millis(1);
        let mut brake = Brake::default();
        assert!(brake.has_room(&[begun; 31], 32) && !brake.has_room(&[begun; 32], 32));
        brake.refused(begun, now, None, 0.0);
        brake.accepted(begun);
        let open_at = brake.open_at(now).expect("an answer from before opens nothing");
        assert_eq!(brake.open_at(open_at), None);
        assert!(brake.has_room(&[], 32) && !brake.has_room(&[open_at], 32));
        brake.accepted(open_at);
        assert!(brake.has_room(&[open_at; 31], 32));
        brake.refused(open_at, open_at, None, 0.0);
        assert_eq!(brake.open_at(open_at), Some(open_at + FIRST), "from the beginning");
    }

    #[test]
    fn what_was_on_its_way_before_holds_nobody_up() {
        let begun = Instant::now();
        let mut brake = Brake::default();
        brake.refused(begun, begun + Duration::from_millis(1), None, 0.0);
        let open_at = brake.open_at(begun).unwrap();
        assert!(brake.has_room(&[begun; 31], 32));
        assert!(!brake.has_room(&[begun, open_at], 32), "one goes ahead");
        // One that hung is given up: it was sent before.
        assert!(!brake.refused(begun, open_at, None, 0.0));
        brake.accepted(begun);
        assert!(!brake.has_room(&[open_at], 32), "nor is it the answer that is waited for");
        brake.accepted(open_at);
        assert!(!brake.refused(begun, open_at + FIRST, None, 0.0), "also after that one was taken");
        assert_eq!(brake.open_at(open_at), None);
        assert!(!brake.has_room(&[begun; 32], 32), "but all of them are on their way");
    }
}
