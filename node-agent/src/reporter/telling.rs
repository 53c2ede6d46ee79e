//! Events: the API server may have no room for them, in an etcd of their own, and time for all else.

use tokio::time::Instant;

use super::brake::{Brake, random};

/// When the next event may be told.
#[derive(Debug, Default)]
pub struct Telling {
    brake: Brake,
    until: Option<Instant>,
}

impl Telling {
    /// Whether now is such a time.
    pub fn may(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Whether the API server had time for the last ones, if it was asked.
    pub fn heard(&mut self, has_time: Option<bool>, now: Instant) {
        match has_time {
            None => {}
            Some(true) => {
                self.brake.release();
                self.until = None;
            }
            Some(false) => self.until = Some(now + self.brake.pull(random())),
        }
    }

    /// When to try again, if something could not be told.
    pub fn again(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_tried_again_later_and_later() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        assert!(telling.may(now) && telling.again().is_none());
        telling.heard(Some(false), now);
        telling.heard(Some(false), now);
        telling.heard(None, now);
        assert!(!telling.may(now));
        assert!(telling.again().unwrap() >= now + Duration::from_secs(1));
        let later = now + Duration::from_secs(2);
        telling.heard(None, later);
        assert!(telling.may(later) && telling.again().is_some(), "nothing was asked");
        telling.heard(Some(true), later);
        assert!(telling.may(now) && telling.again().is_none());
    }
}
