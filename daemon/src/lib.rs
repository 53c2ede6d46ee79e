//! What every program of l7egg that runs for long needs of itself, whatever it does.

pub mod files;
pub mod http;
pub mod output;
pub mod panics;
pub mod revisions;
