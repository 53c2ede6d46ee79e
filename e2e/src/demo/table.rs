//! The demo's table.

use std::fmt;

use crate::cluster::{Checked, Pod};

const HEAD: [&str; 5] = ["POD", "DESTINATION", "ADDRESS", "THE EGG SAYS", "WHAT HAPPENED"];

/// One check.
pub struct Row {
    /// Whether it happened as it should.
    pub passed: bool,
    cells: [String; 5],
}

impl Row {
    /// Of a connection.
    pub fn new(pod: &Pod, egg_says: &str, checked: Checked) -> Self {
        let passed = checked.passed();
        let report = checked.report;
        let mark = if passed { "✓" } else { "✗ NOT AS IT SHOULD BE" };
        Row {
            passed,
            cells: [
                format!("{} ({})", pod.name, pod.node),
                report.target.to_string(),
                report.address.map(|address| address.to_string()).unwrap_or_default(),
                egg_says.to_string(),
                format!("{} in {:.1} ms {mark}", report.outcome, report.micros as f64 / 1e3),
            ],
        }
    }

    /// Of the Egg's line in `kubectl get eggs`.
    pub fn of_kubectl(line: &str, passed: bool) -> Self {
        let cells = ["kubectl get eggs -A", "", "", "", line].map(String::from);
        Row { passed, cells }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cells.join(" | "))
    }
}

/// Prints rows under a head, in columns as wide as they must be.
pub fn print(rows: &[Row]) {
    let head = HEAD.map(String::from);
    let lines: Vec<&[String; 5]> = std::iter::once(&head).chain(rows.iter().map(|row| &row.cells)).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for cells in &lines {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("  {}", padded.join("  ").trim_end());
    }
}
