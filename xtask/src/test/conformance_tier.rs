//! The conformance tier: the table of what DNS does, by client and resolver, on this machine's kernel.

use super::binaries;
use super::report::Row;
use super::runner::{self, Show};
use crate::process;

/// Seconds; it takes one or two minutes.
const LIMIT: u64 = 600;

/// Runs the tier.
pub fn run(filter: &[String]) -> Row {
    let binaries = match binaries::build("node-agent", "conformance") {
        Ok(binaries) => binaries,
        Err(error) => return Row::unable("conformance", &error),
    };
    let tests = binaries.iter().map(|binary| {
        let mut test = process::command(&binary.program, ["--show-output"]);
        binary.prepare(&mut test);
        test.args(filter);
        test
    });
    runner::run("conformance", tests.collect(), LIMIT, Show::Everything)
}
