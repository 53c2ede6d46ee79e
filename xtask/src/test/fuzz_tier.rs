//! The fuzz tier: every fuzz target for a minute.

use std::time::Instant;

use super::libtest::Tally;
use super::report::Row;
use crate::fuzz;

/// Seconds for each target.
const SECONDS: u32 = 60;

/// Runs the tier. A target counts as a test.
pub fn run() -> Row {
    eprintln!("xtask: test tier fuzz");
    let started = Instant::now();
    let targets = match fuzz::build().and_then(|()| fuzz::targets()) {
        Ok(targets) => targets,
        Err(error) => return Row::unable("fuzz", &error),
    };
    let outcomes = fuzz::run_all(&targets, SECONDS);
    print!("{}", fuzz::table(&outcomes));
    let mut tally = Tally::default();
    for (target, outcome) in &outcomes {
        match outcome.failure {
            None => tally.passed += 1,
            Some(_) => tally.failed.push(target.clone()),
        }
    }
    Row { tier: "fuzz".to_owned(), tally, trouble: None, took: started.elapsed(), required: true }
}
