//! The table, as it is printed: a row for each behaviour, the clients' columns grouped by resolver.

use std::fmt;
use std::fmt::Write;

use crate::behaviours::Behaviour;
use crate::cell::{Shortfall, Verdict};
use crate::client::Client;
use crate::resolver::Resolver;

/// Every cell.
pub struct Table {
    rows: Vec<Row>,
    /// Why cells are not applicable, each reason once; the letters are their places.
    reasons: Vec<String>,
}

struct Row {
    name: &'static str,
    /// By resolver, then by client.
    cells: Vec<(Resolver, Client, Verdict)>,
}

impl Table {
    /// A table of the verdicts of each resolver, by behaviour and client.
    pub fn new(behaviours: &[Behaviour], columns: [(Resolver, Vec<Vec<Verdict>>); 4]) -> Self {
        let mut rows: Vec<_> =
            behaviours.iter().map(|behaviour| Row { name: behaviour.name, cells: Vec::new() }).collect();
        for (resolver, verdicts) in columns {
            for (row, verdicts) in rows.iter_mut().zip(verdicts) {
                let cells = Client::ALL.into_iter().zip(verdicts);
                row.cells.extend(cells.map(|(client, verdict)| (resolver, client, verdict)));
            }
        }
        let mut reasons = Vec::new();
        for (_, _, verdict) in rows.iter().flat_map(|row| &row.cells) {
            if let Err(Shortfall::NotApplicable(reason)) = verdict
                && !reasons.contains(reason)
            {
                reasons.push(reason.clone());
            }
        }
        Self { rows, reasons }
    }

    /// The cells that failed, a line each.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for row in &self.rows {
            for (resolver, client, verdict) in &row.cells {
                if let Err(Shortfall::Failed(why)) = verdict {
                    let (client, resolver) = (client.name().0, resolver.name());
                    failures.push(format!("FAIL {}, {client}, {resolver}: {why}", row.name));
                }
            }
        }
        failures
    }

    /// Leaves it where xtask's tests leave their outputs.
    pub fn write(&self) {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("xtask-logs");
        std::fs::create_dir_all(&folder).expect("target/xtask-logs");
        std::fs::write(folder.join("conformance.txt"), self.to_string()).expect("conformance.txt");
    }

    fn mark(&self, verdict: &Verdict) -> String {
        match verdict {
            Ok(()) => "ok".to_owned(),
            Err(Shortfall::Failed(_)) => "FAIL".to_owned(),
            Err(Shortfall::NotApplicable(reason)) => {
                let place = self.reasons.iter().position(|known| known == reason).unwrap_or_default();
                format!("-{}", letter(place))
            }
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marks: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.cells.iter().map(|(_, _, verdict)| self.mark(verdict)).collect())
            .collect();
        let width = marks.iter().flatten().map(String::len).max().unwrap_or(2);
        let title = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        let group = (width + 1) * Client::ALL.len();
        let mut heads = [" ".repeat(title), " ".repeat(title)];
        for resolver in Resolver::ALL {
            write!(heads[0], " | {:<group$}", resolver.name())?;
            heads[1].push_str(" | ");
            for client in Client::ALL {
                write!(heads[1], "{:<width$} ", client.name().1)?;
            }
        }
        heads.iter().try_for_each(|head| writeln!(out, "{}", head.trim_end()))?;
        for (row, marks) in self.rows.iter().zip(&marks) {
            let mut line = format!("{:<title$}", row.name);
            for group in marks.chunks(Client::ALL.len()) {
                line.push_str(" | ");
                group.iter().try_for_each(|mark| write!(line, "{mark:<width$} "))?;
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        let legend = Client::ALL.map(|client| format!("{} {}", client.name().1, client.name().0));
        writeln!(out, "{}", legend.join(", "))?;
        for (place, reason) in self.reasons.iter().enumerate() {
            writeln!(out, "-{} not applicable: {reason}", letter(place))?;
        }
        self.failures().iter().try_for_each(|failure| writeln!(out, "{failure}"))?;
        let (mut passed, mut not_applicable, mut failed) = (0, 0, 0);
        for (_, _, verdict) in self.rows.iter().flat_map(|row| &row.cells) {
            match verdict {
                Ok(()) => passed += 1,
                Err(Shortfall::NotApplicable(_)) => not_applicable += 1,
                Err(Shortfall::Failed(_)) => failed += 1,
            }
        }
        let cells = passed + not_applicable + failed;
        write!(
            out,
            "conformance: {cells} cells, {passed} passed, {not_applicable} not applicable, {failed} failed"
        )
    }
}

fn letter(place: usize) -> char {
    (b'a'..=b'z').nth(place).map_or('?', char::from)
}
