//! Running test programs and watching what they say.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::libtest::{Line, Tally};
use super::report::Row;
use crate::process::{describe, step};
use crate::workspace;

/// How much of the output goes to the terminal. All of it goes to the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Failures only, and now and then a count: for thousands of tests.
    Failures,
    /// Every test's result and what the verifier counted: where a failure is no surprise.
    Results,
    /// Every test with its output, but for log lines of those that pass: measurements are of interest.
    Everything,
}

/// Runs the commands of one tier one after the other, each for at most `limit` seconds.
pub fn run(tier: &str, commands: Vec<Command>, limit: u64, show: Show) -> Row {
    run_beside(tier, "", commands, limit, show)
}

/// The same beside others: `prefix` says in each line whose it is.
pub fn run_beside(tier: &str, prefix: &str, commands: Vec<Command>, limit: u64, show: Show) -> Row {
    eprintln!("xtask: test tier {tier}");
    // The last run's output goes; what cannot be written is reported by the first program that wants to.
    fs::create_dir_all(workspace::logs()).ok();
    fs::remove_file(log_of(tier)).ok();
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut trouble = None;
    for command in commands {
        tally.next_program();
        if let Err(error) = watch(tier, prefix, command, limit, show, &mut tally) {
            trouble = Some(format!("{error:#}"));
        }
    }
    Row { tier: tier.to_owned(), tally, trouble, took: started.elapsed(), required: true }
}

fn watch(
    tier: &str,
    prefix: &str,
    mut command: Command,
    limit: u64,
    show: Show,
    tally: &mut Tally,
) -> Result<()> {
    let path = log_of(tier);
    let mut log = File::options().create(true).append(true).open(&path)?;
    writeln!(log, "\n=== {command:?}")?;

    command.env("NO_COLOR", "1");
    let failed_before = tally.failed.len();
    let mut count = Instant::now();
    let mut failures = false;
    let status = step(tier, command).limit(limit).lines(|line| {
        // The log is for people; a full disk must not hide the tests' results.
        let _ = writeln!(log, "{line}");
        let kind = tally.line(line);
        failures = (failures || line == "failures:") && !line.starts_with("test result: ");
        // What a suite says between its results.
        let is_sum = ["verified ", "adversary: ", "chaos: "].iter().any(|start| line.starts_with(start));
        let wanted = match show {
            Show::Failures => failures || line.ends_with(" ... FAILED"),
            Show::Results => failures || kind == Line::Result || is_sum,
            Show::Everything => {
                failures || is_sum || kind != Line::Frame && !is_log(line) && !line.is_empty()
            }
        };
        if wanted {
            println!("{prefix}{line}");
        } else if show == Show::Failures && count.elapsed() > Duration::from_secs(10) {
            eprintln!("xtask: {tier}: {} passed so far", tally.passed);
            count = Instant::now();
        }
    })?;
    if status.success() || tally.failed.len() > failed_before {
        return Ok(());
    }
    // Not a failed test but a program that crashed, a VM that died, a compiler's error.
    bail!("a test program did not come to its end: {}; see {}", describe(status), path.display())
}

fn log_of(tier: &str) -> PathBuf {
    workspace::logs().join(format!("test-{}.log", tier.replace(' ', "-")))
}

/// Whether it is a line of the tracing crate, which begins with the time: `2026-01-31T…`.
fn is_log(line: &str) -> bool {
    let mut shape = line.bytes().take(11).map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    b"0000-00-00T".iter().all(|expected| shape.next() == Some(*expected))
}
