//! The unit tier: every crate's own tests.

use super::report::Row;
use super::runner::{self, Show};
use crate::process::command;

/// Runs the tier.
pub fn run(filter: &[String]) -> Row {
    let mut cargo =
        command("cargo", ["test", "--workspace", "--lib", "--bins", "--no-fail-fast", "--", "--show-output"]);
    cargo.args(filter);
    runner::run("unit", vec![cargo], 3600, Show::Failures)
}
