//! What DNS does: the rows of the table.

mod addresses;
mod answers;
mod patterns;
mod transport;

use crate::cell::{Cell, Verdict};

/// The search domains of the pod.
pub const SEARCH: &str = "a.{zone} b.{zone}";

/// One row. The texts are filled in for each cell, so that all of them have a zone and addresses of their own.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// What it is, in a few words.
    pub name: &'static str,
    /// The spec of the one Egg that is in force.
    pub policy: &'static str,
    /// What the resolver knows: lines of a zone file.
    pub records: &'static str,
    /// What must happen.
    pub check: fn(&Cell) -> Verdict,
}

/// Every row.
pub fn all() -> Vec<Behaviour> {
    [patterns::ROWS, answers::ROWS, transport::ROWS, addresses::ROWS].concat()
}
