//! How often one status is written: what changes all the time is no news, and all nodes' agents together could keep an API
//! server busy with it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::assignment::AssignmentKey;

/// So many times at once.
const FREE: u32 = 3;
/// Then so long after the last time, twice as long after each, and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// Who has been quiet for so much longer begins anew.
const QUIET: Duration = Duration::from_secs(20);

/// When each status was written.
#[derive(Debug, Default)]
pub struct Pace(BTreeMap<AssignmentKey, Paced>);

#[derive(Clone, Copy, Debug)]
struct Paced {
    /// What was written was of this generation. Another one is the operator's, which has a pace of its own.
    generation: Option<i64>,
    times: u32,
    last: Instant,
}

impl Pace {
    /// When a status of this generation may be written, if that is not at once.
    pub fn until(&self, key: &AssignmentKey, generation: Option<i64>) -> Option<Instant> {
        let paced = self.0.get(key).filter(|paced| paced.generation == generation)?;
        Some(paced.last + paced.pause())
    }

    /// It is written, whether or not the API server took it.
    pub fn wrote(&mut self, key: &AssignmentKey, generation: Option<i64>, now: Instant) {
        let before = self.0.get(key).filter(|paced| {
            paced.generation == generation
                && now.saturating_duration_since(paced.last) < paced.pause() + QUIET
        });
        let times = before.map_or(1, |paced| paced.times.saturating_add(1));
        self.0.insert(key.clone(), Paced { generation, times, last: now });
    }

    /// Forgets assignments that are no more.
    pub fn retain(&mut self, is_known: impl Fn(&AssignmentKey) -> bool) {
        self.0.retain(|key, _| is_known(key));
    }
}

impl Paced {
    fn pause(&self) -> Duration {
        match self.times.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(more) => (PAUSE_FIRST * 2u32.saturating_pow(more.min(16))).min(PAUSE_MOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AssignmentKey {
        AssignmentKey { namespace: "shop".into(), name: "a".into() }
    }

    #[test]
    fn what_changes_all_the_time_is_written_seldom() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let mut writes = Vec::new();
        for tenth in 0..600 {
            let now = start + Duration::from_millis(100) * tenth;
            if pace.until(&key(), Some(1)).is_none_or(|until| until <= now) {
                pace.wrote(&key(), Some(1), now);
                writes.push(tenth);
            }
        }
        assert_eq!(writes, [0, 1, 2, 4, 8, 16, 32, 64, 128, 228, 328, 428, 528]);
    }

    #[test]
    fn after_quiet_and_for_another_generation_it_begins_anew() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let waits = |pace: &Pace, generation, now| {
            pace.until(&key(), Some(generation)).is_some_and(|until| until > now)
        };
        (0..4).for_each(|_| pace.wrote(&key(), Some(1), start));
        assert!(waits(&pace, 1, start) && !waits(&pace, 2, start));
        let later = start + QUIET + PAUSE_FIRST * 2;
        pace.wrote(&key(), Some(1), later);
        assert!(!waits(&pace, 1, later));
        pace.wrote(&key(), Some(1), later);
        pace.wrote(&key(), Some(1), later);
        assert!(waits(&pace, 1, later));
        pace.wrote(&key(), Some(2), later);
        assert!(!waits(&pace, 2, later));
        pace.retain(|_| false);
        assert!(!waits(&pace, 1, later));
    }
}
