//! Figures of a sample, and the turns in which samples are taken.

/// Every order, so that each variant follows each other one as often.
pub const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [1, 0, 2], [2, 0, 1], [0, 2, 1], [1, 2, 0], [2, 1, 0]];

/// The value that so many in a hundred are not above (nearest rank); 0 if there is none. Sorts the sample.
pub fn percentile(sample: &mut [u64], percent: usize) -> u64 {
    sample.sort_unstable();
    let rank = (sample.len() * percent).div_ceil(100);
    sample.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The middle of a sample; 0 if there is none.
pub fn median(sample: &[f64]) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_middles() {
        let mut sample: Vec<u64> = (1..=200).rev().collect();
        assert_eq!((percentile(&mut sample, 50), percentile(&mut sample, 99)), (100, 198));
        assert_eq!(percentile(&mut [], 50), 0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
