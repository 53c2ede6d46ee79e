//! What libFuzzer says about a run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// What became of one target.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Inputs that were run.
    pub executions: u64,
    /// Inputs a second.
    pub per_second: u64,
    /// Inputs that reached new code and were kept.
    pub kept: u64,
    /// Why it failed: what was broken, and the input.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// From the output of a run with `-print_final_stats=1`, and the error that it ended with.
    pub fn new(output: &str, error: Option<anyhow::Error>, took: Duration) -> Self {
        let stat = |name: &str| {
            let line = output.lines().rev().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
            line.and_then(|rest| rest.trim_start_matches(':').trim().parse().ok()).unwrap_or(0)
        };
        let mut outcome = Self {
            executions: stat("number_of_executed_units"),
            per_second: stat("average_exec_per_sec"),
            kept: stat("new_units_added"),
            failure: None,
            took,
        };
        if let Some(error) = error {
            outcome.failure = Some(failure(output).unwrap_or_else(|| format!("{error:#}")));
        } else if outcome.executions == 0 {
            outcome.failure = Some("no input was run".to_owned());
        }
        outcome
    }
}

/// What was broken and where the input is.
fn failure(output: &str) -> Option<String> {
    let input =
        output.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path))?;
    let mut lines = output.lines();
    let panic = lines.find(|line| line.starts_with("thread '") && line.contains("panicked at"));
    let what = match panic {
        Some(panic) => format!("{} {}", panic, lines.next().unwrap_or_default()),
        None => output.lines().find(|line| line.starts_with("SUMMARY: "))?.to_owned(),
    };
    Some(format!("{}\n         input: {input}", what.trim()))
}

/// A line for each target.
pub fn table(outcomes: &BTreeMap<String, Outcome>) -> String {
    let mut table = format!(
        "\n{:<12} {:>8} {:>12} {:>14} {:>10}\n",
        "target", "seconds", "inputs", "inputs/second", "new"
    );
    for (target, outcome) in outcomes {
        let Outcome { executions, per_second, kept, took, .. } = outcome;
        let _ = writeln!(
            table,
            "{target:<12} {:>8} {executions:>12} {per_second:>14} {kept:>10}",
            took.as_secs()
        );
    }
    for (target, outcome) in outcomes {
        if let Some(failure) = &outcome.failure {
            let _ = writeln!(table, "FAILED   {target}: {failure}");
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: &str = "\
INFO: Seed: 1
thread '<unnamed>' (7) panicked at fuzz_targets/answer.rs:31:9:
assertion failed: false
==7== ERROR: libFuzzer: deadly signal
SUMMARY: libFuzzer: deadly signal
artifact_prefix='fuzz/artifacts/answer/'; Test unit written to fuzz/artifacts/answer/crash-0a
stat::number_of_executed_units: 12
stat::average_exec_per_sec:     6
stat::new_units_added:          3
";

    #[test]
    fn a_crash_says_what_and_where() {
        let outcome = Outcome::new(CRASH, Some(anyhow::anyhow!("exit status 77")), Duration::ZERO);
        assert_eq!((outcome.executions, outcome.per_second, outcome.kept), (12, 6, 3));
        let failure = outcome.failure.unwrap();
        assert!(failure.contains("answer.rs:31:9: assertion failed: false"), "{failure}");
        assert!(failure.ends_with("fuzz/artifacts/answer/crash-0a"), "{failure}");
    }

    #[test]
    fn a_run_without_inputs_has_failed() {
        assert!(Outcome::new("", None, Duration::ZERO).failure.is_some());
        assert!(Outcome::new("stat::number_of_executed_units: 9", None, Duration::ZERO).failure.is_none());
    }
}
