//! How often one thing is done that others can ask for as often as they like: at once the first few times, then later and
//! later. Without a clock of its own.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How often.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So many times at once.
    pub free: u32,
    /// The pause after these; it doubles with each further time.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// All is as in the beginning when it has been possible for this long, and was not done.
    pub quiet: Duration,
}

/// How often one thing was done of late.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    times: u32,
    last: Option<Instant>,
}

impl Pace {
    fn earliest(&self, limits: &Limits) -> Option<Instant> {
        Some(self.last? + pause(self.times, limits))
    }

    /// When it may be done, if that is not now.
    pub fn wait(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        self.earliest(limits).filter(|due| *due > now)
    }

    /// It is done now.
    pub fn done(&mut self, limits: &Limits, now: Instant) {
        self.done_of_two(limits, limits, now);
    }

    /// The same for what has two limits: how long it rested is a matter of the `slower`.
    fn done_of_two(&mut self, limits: &Limits, slower: &Limits, now: Instant) {
        let idle = self.earliest(slower).map_or(slower.quiet, |due| now.saturating_duration_since(due));
        // What is done seldom never waits, though it never rests for long: each pause that is left unused takes one time back.
        let taken_back = idle.as_millis() / slower.longest.as_millis().max(1);
        let times =
            self.times.min(steps(limits)).saturating_sub(u32::try_from(taken_back).unwrap_or(u32::MAX));
        self.times = 1 + if idle >= slower.quiet { 0 } else { times };
        self.last = Some(now);
    }

    fn is_quiet(&self, limits: &Limits, now: Instant) -> bool {
        self.earliest(limits).is_none_or(|due| due + limits.quiet <= now)
    }
}

/// The pause after so many times.
fn pause(times: u32, limits: &Limits) -> Duration {
    match times.checked_sub(limits.free) {
        None => Duration::ZERO,
        Some(doubled) => {
            limits.first.saturating_mul(2_u32.saturating_pow(doubled.min(30))).min(limits.longest)
        }
    }
}

/// Times after which the pause grows no more.
fn steps(limits: &Limits) -> u32 {
    let longest = limits.longest.as_millis() / limits.first.as_millis().max(1);
    limits.free + u128::BITS - longest.leading_zeros()
}

/// The paces of many things, each until it is quiet: also of things that are gone, which may come back.
#[derive(Debug)]
pub struct Paces<K> {
    /// Each with the slowest limits that it was done by since it was quiet.
    paces: HashMap<K, (Pace, &'static Limits)>,
}

impl<K: Eq + Hash> Default for Paces<K> {
    fn default() -> Self {
        Paces { paces: HashMap::new() }
    }
}

impl<K: Eq + Hash> Paces<K> {
    /// When this may be done, if that is not now.
    pub fn wait(&self, key: &K, limits: &Limits, now: Instant) -> Option<Instant> {
        self.paces.get(key)?.0.wait(limits, now)
    }

    /// This is done now.
    pub fn done(&mut self, key: K, limits: &'static Limits, now: Instant) {
        let (pace, slowest) = self.paces.entry(key).or_insert((Pace::default(), limits));
        if pace.is_quiet(slowest, now) || slowest.longest < limits.longest {
            *slowest = limits;
        }
        pace.done_of_two(limits, slowest, now);
    }

    /// For this all is as in the beginning.
    pub fn forget(&mut self, key: &K) {
        self.paces.remove(key);
    }

    /// Forgets what is as in the beginning.
    pub fn forget_quiet(&mut self, now: Instant) {
        self.paces.retain(|_, (pace, limits)| !pace.is_quiet(limits, now));
    }
}

/// Waits until then, or for ever.
pub async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LIMITS: Limits = Limits {
        free: 3,
        first: Duration::from_millis(100),
        longest: Duration::from_secs(2),
        quiet: Duration::from_secs(10),
    };

    /// When it is done that is asked for at these milliseconds, each after the one before.
    fn times(asked: &[u64], limits: &Limits) -> Vec<u128> {
        let start = Instant::now();
        let (mut pace, mut now) = (Pace::default(), start);
        let time = |asked: &u64| {
            now = now.max(start + Duration::from_millis(*asked));
            now = pace.wait(limits, now).unwrap_or(now);
            pace.done(limits, now);
            (now - start).as_millis()
        };
        asked.iter().map(time).collect()
    }

    #[test]
    fn at_once_then_later_and_later() {
        let all_at_once = times(&[0; 12], &LIMITS);
        assert_eq!(all_at_once, [0, 0, 0, 100, 300, 700, 1500, 3100, 5100, 7100, 9100, 11100]);
    }

    #[test]
    fn after_quiet_as_in_the_beginning() {
        for (asked, done) in [
            // A pause of 100 ms would have ended at 100, and 10 s after that it is quiet.
            ([0, 0, 0, 10_099, 10_099], [0, 0, 0, 10_099, 10_099]),
            ([0, 0, 0, 10_100, 10_100], [0, 0, 0, 10_100, 10_100]),
            // Shorter rests take back some of it.
            ([0, 0, 0, 1_000, 1_000], [0, 0, 0, 1_000, 1_200]),
            ([0, 0, 0, 2_100, 2_100], [0, 0, 0, 2_100, 2_200]),
            ([0, 0, 0, 4_100, 4_100], [0, 0, 0, 4_100, 4_100]),
        ] {
            assert_eq!(times(&asked, &LIMITS), done, "{asked:?}");
        }
        let seldom: Vec<u64> = (0..50).map(|number| number * 4_000).collect();
        assert_eq!(times(&seldom, &LIMITS), seldom.iter().map(|time| u128::from(*time)).collect::<Vec<_>>());
    }

    #[test]
    fn one_thing_has_two_limits() {
        let start = Instant::now();
        let slow = Limits { longest: Duration::from_secs(10), ..LIMITS };
        let (mut pace, mut now) = (Pace::default(), start);
        for _ in 0..20 {
            now = pace.wait(&slow, now).unwrap_or(now);
            pace.done(&slow, now);
        }
        assert_eq!(pace.wait(&slow, now), Some(now + slow.longest));
        assert_eq!(pace.wait(&LIMITS, now), Some(now + LIMITS.longest));
        assert_eq!(pace.wait(&LIMITS, now + LIMITS.longest), None);
    }

    /// Else whoever can have the one done decides how often the other is.
    #[test]
    fn what_is_done_for_other_reasons_takes_nothing_back_of_the_slower_pace() {
        static QUICK: Limits = Limits { free: 8, longest: Duration::from_millis(200), ..LIMITS };
        static SLOW: Limits = Limits { longest: Duration::from_secs(8), ..LIMITS };
        let (mut paces, mut now) = (Paces::default(), Instant::now());
        for number in 0..12 {
            now = paces.wait(&"a", &SLOW, now).unwrap_or(now);
            paces.done("a", &SLOW, now);
            if number > 8 {
                for _ in 0..2 {
                    now += Duration::from_millis(1500);
                    assert_eq!(paces.wait(&"a", &QUICK, now), None);
                    paces.done("a", &QUICK, now);
                }
                assert!(paces.wait(&"a", &SLOW, now) >= Some(now + Duration::from_millis(3200)));
            }
        }
        // Quiet is when the slower could have been done for that long.
        now += Duration::from_millis(8_000) + SLOW.quiet;
        for _ in 0..3 {
            assert_eq!(paces.wait(&"a", &SLOW, now), None);
            paces.done("a", &QUICK, now);
        }
        assert_eq!(paces.wait(&"a", &SLOW, now), Some(now + SLOW.first));
    }

    #[test]
    fn what_is_quiet_is_forgotten_and_nothing_else() {
        let now = Instant::now();
        let mut paces = Paces::default();
        for _ in 0..4 {
            paces.done("a", &LIMITS, now);
        }
        let quiet = now + Duration::from_millis(10_200);
        paces.forget_quiet(quiet - Duration::from_millis(1));
        assert!(paces.wait(&"a", &LIMITS, now).is_some());
        assert!(paces.wait(&"b", &LIMITS, now).is_none());
        paces.forget_quiet(quiet);
        assert_eq!(paces.paces.len(), 0);
    }
}
