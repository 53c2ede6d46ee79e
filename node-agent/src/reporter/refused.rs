//! What the API server refuses is tried again, alone.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::assignment::AssignmentKey;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// What the API server refused, with when it is tried again and the pause before that.
#[derive(Debug, Default)]
pub struct Refused(BTreeMap<AssignmentKey, (Instant, Duration)>);

impl Refused {
    /// When it may be tried again, if that is not at once.
    pub fn until(&self, key: &AssignmentKey) -> Option<Instant> {
        self.0.get(key).map(|(at, _)| *at)
    }

    /// The pause until it may be tried again.
    pub fn again(&mut self, key: &AssignmentKey) -> Duration {
        let pause = self.0.get(key).map_or(RETRY_FIRST, |(_, pause)| (*pause * 2).min(RETRY_MOST));
        self.0.insert(key.clone(), (Instant::now() + pause, pause));
        pause
    }

    /// It is refused no longer.
    pub fn accepted(&mut self, key: &AssignmentKey) {
        self.0.remove(key);
    }

    /// Forgets what is not due any more.
    pub fn retain(&mut self, is_due: impl Fn(&AssignmentKey) -> bool) {
        self.0.retain(|key, _| is_due(key));
    }
}
