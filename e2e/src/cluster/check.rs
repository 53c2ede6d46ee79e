//! Expectations and what became of them.

use std::fmt;

use super::Pod;
use crate::probe::ConnectReport;

/// What should become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Packets go there and back.
    Reached,
    /// They do not, though the destination's name resolves.
    Blocked,
}

/// A target and what should become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// A target of the probe, such as `tcp4://api.shop.test:443`.
    pub target: String,
    /// What should become of it.
    pub expect: Expect,
}

/// The target must be reached.
pub fn reached(target: impl Into<String>) -> Expectation {
    Expectation { target: target.into(), expect: Expect::Reached }
}

/// The target must be out of reach.
pub fn blocked(target: impl Into<String>) -> Expectation {
    Expectation { target: target.into(), expect: Expect::Blocked }
}

/// An expectation and what happened.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The pod's name.
    pub pod: String,
    /// What was expected.
    pub expect: Expect,
    /// What happened.
    pub report: ConnectReport,
}

impl Checked {
    /// Whether it happened as expected.
    pub fn passed(&self) -> bool {
        match self.expect {
            Expect::Reached => self.report.outcome.is_reached() && self.report.later.is_none(),
            Expect::Blocked => self.report.outcome.is_blocked(),
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnectReport { target, address, outcome, micros, sent_again, .. } = &self.report;
        let address = address.map(|address| format!(" ({address})")).unwrap_or_default();
        let verdict = match (self.passed(), self.expect) {
            (true, _) => "as expected",
            (false, Expect::Reached) => "BUT SHOULD HAVE BEEN REACHED",
            (false, Expect::Blocked) => "BUT SHOULD HAVE BEEN BLOCKED",
        };
        write!(
            f,
            "{} → {target}{address}: {outcome} after {:.1} ms, {verdict}",
            self.pod,
            *micros as f64 / 1e3
        )?;
        if *sent_again > 0 { write!(f, " (by SYN number {})", sent_again + 1) } else { Ok(()) }
    }
}

/// Lets one pod connect to each target, all at the same time.
///
/// # Errors
/// When the probe does not run; not when expectations fail.
pub async fn check(pod: &Pod, expectations: &[Expectation]) -> anyhow::Result<Vec<Checked>> {
    if expectations.is_empty() {
        return Ok(Vec::new());
    }
    let targets: Vec<&str> = expectations.iter().map(|expectation| expectation.target.as_str()).collect();
    let reports = pod.connect(&targets).await?;
    let pairs = expectations.iter().zip(reports);
    Ok(pairs
        .map(|(expected, report)| Checked { pod: pod.name.clone(), expect: expected.expect, report })
        .collect())
}
