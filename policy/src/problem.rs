//! What is wrong with an Egg.

use std::fmt;

/// One thing that keeps an Egg from being accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where: `spec.egress[0].to[1].cidr`.
    pub path: String,
    /// Wrong in itself, or not there yet.
    pub kind: ProblemKind,
    /// What is wrong and what to write.
    pub message: String,
}

/// What kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// It means nothing.
    Invalid,
    /// It means something that this version does not enforce, and so does not pretend to.
    Unsupported,
}

impl Problem {
    pub(crate) fn invalid(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Problem { path: path.into(), kind: ProblemKind::Invalid, message: message.to_string() }
    }

    pub(crate) fn unsupported(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Problem { path: path.into(), kind: ProblemKind::Unsupported, message: message.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}
