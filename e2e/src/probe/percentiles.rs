//! Percentiles of durations.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::micros;

/// A sample in microseconds, by the nearest-rank method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The size of the sample.
    pub count: usize,
    /// The median.
    pub p50: u64,
    /// All but one in a hundred are no longer.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

impl Percentiles {
    /// Those of `sample`; zeros if it is empty.
    pub fn of(sample: &[Duration]) -> Self {
        let mut sorted: Vec<u64> = sample.iter().map(|duration| micros(*duration)).collect();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Percentiles { count: sorted.len(), p50: rank(50), p99: rank(99), max: rank(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_ranks() {
        let sample: Vec<Duration> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(Percentiles::of(&sample), Percentiles { count: 200, p50: 100, p99: 198, max: 200 });
        assert_eq!(Percentiles::of(&[]), Percentiles::default());
        assert_eq!(Percentiles::of(&[Duration::from_micros(7)]).p99, 7);
    }
}
