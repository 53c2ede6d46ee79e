//! What is wrong with an Egg.

use std::fmt;

/// One thing that keeps an Egg from being accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where: `spec.egress[0].to[1].cidr`.
    pub path: String,
    /// What is wrong and what to write.
    pub message: String,
}

impl Problem {
    pub(crate) fn invalid(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Problem { path: path.into(), message: message.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}
