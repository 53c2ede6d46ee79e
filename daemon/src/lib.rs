//! What every program of l7egg that runs for long needs of itself, whatever it does.

pub mod client;
pub mod files;
pub mod http;
pub mod log;
pub mod output;
pub mod panics;
pub mod pauses;
pub mod revisions;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
