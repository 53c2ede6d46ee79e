//! How long something goes on to hold that comes and goes: it is told to many, and each change is a write for each of them.

use std::time::{Duration, Instant};

/// So long after the last time, at first.
pub const LINGER: Duration = Duration::from_secs(60);
/// And at most.
const LINGER_MOST: Duration = Duration::from_secs(60 * 60);
/// What comes again so soon after it was over is the same thing, and goes on for twice as long.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// Something that was seen, and holds for a while.
#[derive(Clone, Copy, Debug)]
pub struct Lingering {
    last: Instant,
    lingers: Duration,
}

impl Lingering {
    /// It is seen.
    #[must_use]
    pub fn seen(before: Option<Lingering>, now: Instant) -> Self {
        let Some(Lingering { last, lingers }) = before else {
            return Lingering { last: now, lingers: LINGER };
        };
        let quiet = now.saturating_duration_since(last);
        let lingers = match quiet {
            _ if quiet < lingers => lingers,
            _ if quiet < lingers + AGAIN.max(lingers) => (lingers * 2).min(LINGER_MOST),
            _ => LINGER,
        };
        Lingering { last: now, lingers }
    }

    /// Whether it still holds.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < self.lingers
    }

    /// Whether it was so long ago that it is another thing if it comes again.
    #[must_use]
    pub fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= self.lingers + AGAIN.max(self.lingers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it begins or ends in `hours`, looked at every second and seen every so many of them.
    fn transitions(every: u64, hours: u64) -> usize {
        let (start, mut lingering, mut before, mut transitions) = (Instant::now(), None, false, 0);
        for second in 0..hours * 3600 {
            let now = start + Duration::from_secs(second);
            if second % every == 0 {
                lingering = Some(Lingering::seen(lingering, now));
            }
            let holds = lingering.is_some_and(|it| it.holds(now));
            transitions += usize::from(holds != before);
            before = holds;
        }
        transitions
    }

    #[test]
    fn what_comes_again_and_again_flaps_seldom() {
        assert_eq!(transitions(1, 1), 1);
        assert!(transitions(61, 1) <= 7, "{}", transitions(61, 1));
        // Whatever the rhythm is.
        for every in (1..7200).step_by(7) {
            assert!(transitions(every, 24) <= 24 * 12, "every {every} s: {}", transitions(every, 24));
        }
    }

    #[test]
    fn what_was_quiet_for_long_begins_anew() {
        let start = Instant::now();
        let after = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut lingering = Lingering::seen(None, start);
        for minutes in [2, 5, 10, 20, 40] {
            assert!(!lingering.holds(after(minutes)));
            lingering = Lingering::seen(Some(lingering), after(minutes));
        }
        assert!(lingering.holds(after(40 + 31)) && !lingering.holds(after(40 + 32)));
        assert!(!lingering.is_forgotten(after(40 + 63)) && lingering.is_forgotten(after(40 + 64)));
        lingering = Lingering::seen(Some(lingering), after(40 + 64));
        assert!(!lingering.holds(after(40 + 65)));
    }
}
