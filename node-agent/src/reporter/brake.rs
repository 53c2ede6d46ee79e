//! When the API server has too much to do, or none is there, all writes wait.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(30);

/// The pause before the next attempt.
#[derive(Debug, Default)]
pub struct Brake(Option<Duration>);

impl Brake {
    /// It did not answer, or was too busy: how long it is left alone. `random` is from 0 to 1, so that not all agents come back at
    /// once.
    pub fn pull(&mut self, random: f64) -> Duration {
        let pause = self.0.map_or(PAUSE_FIRST, |pause| (pause * 2).min(PAUSE_MOST));
        self.0 = Some(pause);
        pause.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// It answers.
    pub fn release(&mut self) {
        self.0 = None;
    }
}

/// Another number from 0 to 1 each time.
pub fn random() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_begin_anew() {
        let mut brake = Brake::default();
        let pauses: Vec<u64> = (0..7).map(|_| brake.pull(1.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(brake.pull(0.0), Duration::from_secs(15));
        brake.release();
        assert_eq!(brake.pull(0.5), Duration::from_millis(750));
        assert!((0.0..=1.0).contains(&random()));
    }
}
