//! How often the status of one Egg is written.

use std::time::{Duration, Instant};

/// Time for each status write of one Egg, on the average.
const INTERVAL: Duration = Duration::from_millis(100);
/// This much may be used at once after a silence: three writes (accepted, pending, programmed).
const BURST: Duration = Duration::from_millis(200);

/// Paces the status writes of one Egg: the generic cell rate algorithm (ITU-T I.371), which needs one time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    paid_until: Option<Instant>,
    waits_until: Option<Instant>,
}

impl Pace {
    /// When the next write may be.
    pub fn earliest(&self, now: Instant) -> Instant {
        self.paid_until.and_then(|until| until.checked_sub(BURST)).map_or(now, |earliest| earliest.max(now))
    }

    /// A write happens now.
    pub fn wrote(&mut self, now: Instant) {
        self.paid_until = Some(self.paid_until.map_or(now, |until| until.max(now)) + INTERVAL);
        self.waits_until = None;
    }

    /// There is a write that may turn out to be unnecessary: when it is to be done if it does not.
    pub fn linger(&mut self, now: Instant) -> Instant {
        *self.waits_until.get_or_insert(now + INTERVAL)
    }

    /// There is nothing to write.
    pub fn settled(&mut self) {
        self.waits_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_at_once_then_ten_a_second() {
        let start = Instant::now();
        let (mut pace, mut now, mut times) = (Pace::default(), start, Vec::new());
        for _ in 0..6 {
            now = pace.earliest(now);
            pace.wrote(now);
            times.push((now - start).as_millis());
        }
        assert_eq!(times, [0, 0, 0, 100, 200, 300]);
        let later = now + Duration::from_secs(1);
        assert_eq!(pace.earliest(later), later);
    }

    #[test]
    fn lingering_ends() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let due = pace.linger(start);
        assert_eq!(due, start + INTERVAL);
        assert_eq!(pace.linger(start + Duration::from_millis(50)), due);
        pace.settled();
        assert!(pace.linger(start + Duration::from_millis(50)) > due);
    }
}
