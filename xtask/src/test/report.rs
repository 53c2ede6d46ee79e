//! The table at the end of a test run.

use std::fmt;
use std::time::Duration;

use super::libtest::Tally;

/// One tier on one kernel or cluster.
pub struct Row {
    /// "unit", "kernel 6.12", …
    pub tier: String,
    /// What became of its tests.
    pub tally: Tally,
    /// Why it could not run, or did not come to its end.
    pub trouble: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// Whether its failures fail the run.
    pub required: bool,
}

impl Row {
    /// A tier that could not run.
    pub fn unable(tier: &str, error: &anyhow::Error) -> Self {
        let trouble = Some(format!("{error:#}"));
        Self { tier: tier.to_owned(), tally: Tally::default(), trouble, took: Duration::ZERO, required: true }
    }

    /// How many of its tests failed, and one more if it did not come to its end.
    pub fn failures(&self) -> usize {
        self.tally.failed.len() + usize::from(self.trouble.is_some())
    }
}

/// What became of all tiers, in the order in which they ran. Displayed, it is the table and the total.
pub struct Report {
    rows: Vec<Row>,
    complete: bool,
}

impl Report {
    /// An empty one. In a `complete` run no test is left out, so a tier of which none ran has failed.
    pub fn new(complete: bool) -> Self {
        Self { rows: Vec::new(), complete }
    }

    /// Adds a tier.
    pub fn add(&mut self, mut row: Row) {
        let ran = row.tally.passed + row.tally.failed.len();
        if self.complete && ran == 0 && row.trouble.is_none() {
            row.trouble = Some("no test ran".to_owned());
        }
        self.rows.push(row);
    }

    /// Whether nothing ran at all.
    pub fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| {
            let Tally { passed, failed, skipped, .. } = &row.tally;
            *passed == 0 && failed.is_empty() && skipped.is_empty() && row.trouble.is_none()
        })
    }

    /// How many failures there are that count.
    pub fn failed(&self) -> usize {
        self.required().map(Row::failures).sum()
    }

    fn required(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.required)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "\n{:<32} {:>6} {:>6} {:>6} {:>7} {:>7}",
            "tier", "ran", "passed", "failed", "skipped", "seconds"
        )?;
        for row in &self.rows {
            let (passed, failed) = (row.tally.passed, row.tally.failed.len());
            let tier = if row.required { row.tier.clone() } else { format!("({})", row.tier) };
            let (skipped, seconds) = (row.tally.skipped.len(), row.took.as_secs());
            writeln!(
                out,
                "{tier:<32} {:>6} {passed:>6} {failed:>6} {skipped:>7} {seconds:>7}",
                passed + failed
            )?;
        }
        if self.rows.iter().any(|row| !row.required) {
            writeln!(out, "(in brackets: tried, does not decide the result)")?;
        }
        for row in &self.rows {
            for (name, reason) in &row.tally.skipped {
                writeln!(out, "skipped  {}: {name}: {reason}", row.tier)?;
            }
        }
        for row in &self.rows {
            let shown = if row.required { usize::MAX } else { 3 };
            for name in row.tally.failed.iter().take(shown) {
                writeln!(out, "FAILED   {}: {name}", row.tier)?;
            }
            if let Some(more @ 1..) = row.tally.failed.len().checked_sub(shown) {
                writeln!(out, "FAILED   {}: {more} more; see target/xtask-logs", row.tier)?;
            }
            if let Some(trouble) = &row.trouble {
                writeln!(out, "FAILED   {}: {trouble}", row.tier)?;
            }
        }
        let passed: usize = self.required().map(|row| row.tally.passed).sum();
        let skipped: usize = self.required().map(|row| row.tally.skipped.len()).sum();
        writeln!(out, "{passed} passed, {} failed, {skipped} skipped", self.failed())
    }
}
