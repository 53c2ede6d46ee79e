//! Whole names, and stars for whole labels in front of them: what the kernel finds by hash.

use std::fmt;

use crate::DomainName;

/// Which names a pattern is about, relative to its [`LabelPattern::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PatternKind {
    /// The name itself.
    Exact,
    /// `*.name`: one label in front of it.
    OneLabel,
    /// `**.name`: one or more labels in front of it.
    AnyLabels,
}

/// `name`, `*.name` or `**.name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPattern {
    /// What stands in front of the name.
    pub kind: PatternKind,
    /// The name, without the stars.
    pub name: DomainName,
}

impl LabelPattern {
    pub(super) fn matches(&self, name: &DomainName) -> bool {
        match (self.kind, name.labels_before(&self.name)) {
            (_, None) => false,
            (PatternKind::Exact, Some(labels)) => labels == 0,
            (PatternKind::OneLabel, Some(labels)) => labels == 1,
            (PatternKind::AnyLabels, Some(labels)) => labels >= 1,
        }
    }
}

impl fmt::Display for LabelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stars = match self.kind {
            PatternKind::Exact => "",
            PatternKind::OneLabel => "*.",
            PatternKind::AnyLabels => "**.",
        };
        write!(f, "{stars}{}", self.name)
    }
}
