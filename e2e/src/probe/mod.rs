//! What client pods run: connections of every kind, and exact reports of what became of them, as one line of
//! JSON each. The harness reads the same types back.

mod attached;
mod bulk;
mod connect;
mod exchange;
mod hold;
mod icmp;
mod load;
mod outcome;
mod percentiles;
mod race;
mod target;
mod watch;

pub use attached::{Attached, attached};
pub use bulk::{BulkReport, bulk};
pub use connect::{ConnectReport, Later, connect, connect_all, resolve};
pub use hold::{HoldReport, hold};
pub use load::{Load, LoadReport, load};
pub use outcome::Outcome;
pub use percentiles::Percentiles;
pub use race::{Families, Race, RaceReport, race};
pub use target::{Family, Protocol, Target};
pub use watch::{Change, watch};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock in microseconds: pods of one test cluster share it with the test.
pub fn now_micros() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
