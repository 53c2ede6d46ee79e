//! What a test program of Rust says on its standard output (libtest's "pretty" format with `--show-output`).

use std::collections::BTreeSet;

/// What became of the tests of one or more programs, fed line by line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many ran and were right.
    pub passed: usize,
    /// The names of those that were not.
    pub failed: Vec<String>,
    /// Those that did not run, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Of which tests the output is being shown.
    section: Option<String>,
    /// Whether it is the output of tests that passed.
    in_successes: bool,
    /// Tests that said themselves that they could not run.
    gave_up: BTreeSet<String>,
}

/// What a line is good for.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A test's result.
    Result,
    /// A test's own output, or a failure's explanation.
    Output,
    /// Headings, counts, empty lines.
    Frame,
}

impl Tally {
    /// Takes in the next line of a program's output.
    pub fn line(&mut self, line: &str) -> Line {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.section = Some(name.to_owned());
            return Line::Frame;
        }
        if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            // Other harnesses put the results below each other.
            let name = name.trim_end().trim_end_matches(" - should panic");
            return self.result(name, result);
        }
        let frame = ["running ", "successes:", "failures:", "test result: "]
            .iter()
            .any(|start| line.starts_with(start));
        if frame {
            self.section = None;
            self.in_successes = line == "successes:";
        }
        let reason = line.strip_prefix("skipped: ").or_else(|| line.strip_prefix("skipped, "));
        if let (true, Some(name), Some(reason)) = (self.in_successes, &self.section, reason)
            && self.gave_up.insert(name.clone())
        {
            self.passed = self.passed.saturating_sub(1);
            self.skipped.push((name.clone(), reason.to_owned()));
        }
        if frame || self.section.is_none() { Line::Frame } else { Line::Output }
    }

    /// Forgets what belongs to one program, before the next one's output.
    pub fn next_program(&mut self) {
        self.section = None;
        self.gave_up.clear();
    }

    fn result(&mut self, name: &str, result: &str) -> Line {
        if result == "ok" {
            self.passed += 1;
        } else if result.starts_with("FAILED") {
            self.failed.push(name.to_owned());
        } else if let Some(reason) = result.strip_prefix("ignored") {
            let reason = reason.strip_prefix(", ").or_else(|| reason.strip_prefix(" (")?.strip_suffix(')'));
            let reason = reason.unwrap_or("marked #[ignore] without a reason");
            self.skipped.push((name.to_owned(), reason.to_owned()));
        }
        Line::Result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 6 tests
test names::exact ... ok
test names::refused - should panic ... ok
test no_fq ... ok
test pacing ... ignored, needs sch_fq
test padded   ... ignored (out of scope)
test wrong ... FAILED

successes:

---- names::exact stdout ----
verified cgroup_egress 1234
---- no_fq stdout ----
skipped: this kernel has no sch_fq


successes:
    names::exact

failures:

---- wrong stdout ----
thread 'wrong' panicked at tests/kernel.rs:1:1:
skipped: not a reason, the test failed

failures:
    wrong

test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn pair(name: &str, reason: &str) -> (String, String) {
        (name.to_owned(), reason.to_owned())
    }

    #[test]
    fn counts_what_passed_failed_and_did_not_run() {
        let mut tally = Tally::default();
        for line in OUTPUT.lines() {
            tally.line(line);
        }
        assert_eq!(tally.passed, 2);
        assert_eq!(tally.failed, ["wrong"]);
        assert_eq!(
            tally.skipped,
            [
                pair("pacing", "needs sch_fq"),
                pair("padded", "out of scope"),
                pair("no_fq", "this kernel has no sch_fq"),
            ]
        );
    }

    #[test]
    fn knows_a_tests_own_output() {
        let mut tally = Tally::default();
        let kinds: Vec<_> = OUTPUT.lines().map(|line| (tally.line(line), line)).collect();
        assert!(kinds.contains(&(Line::Output, "verified cgroup_egress 1234")));
        assert!(kinds.contains(&(Line::Result, "test wrong ... FAILED")));
        assert!(kinds.contains(&(Line::Frame, "    names::exact")));
    }
}
