//! Patterns over domain names.

use std::fmt;

use crate::{DomainName, NameError};

/// Which names a pattern is about, relative to its [`NamePattern::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PatternKind {
    /// The name itself.
    Exact,
    /// `*.name`: one label in front of it.
    OneLabel,
    /// `**.name`: one or more labels in front of it.
    AnyLabels,
}

/// A name as an Egg may write it: `name`, `*.name` or `**.name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern {
    /// What stands in front of the name.
    pub kind: PatternKind,
    /// The name, without the stars.
    pub name: DomainName,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A `*` inside a label, or a star label that is not the first.
    #[error(
        "{0:?}: a star inside a label or behind the first label comes with a later version of l7egg; write the names one by one, or a star as the whole first label (*.example.com, **.example.com)"
    )]
    StarInside(String),
    /// Only stars.
    #[error(
        "{0:?} would match every name: put a name behind the star (*.example.com), or allow addresses with cidr"
    )]
    StarAlone(String),
    /// More than two stars as first label.
    #[error("{0:?}: write * for one label, ** for one or more")]
    Stars(String),
    /// The name behind the stars is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl NamePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (stars, rest) = match text.split_once('.') {
            Some((first, rest)) if is_stars(first) => (first, rest),
            None if is_stars(text) => (text, ""),
            _ => ("", text),
        };
        let kind = match stars {
            "" => PatternKind::Exact,
            "*" => PatternKind::OneLabel,
            "**" => PatternKind::AnyLabels,
            _ => return Err(PatternError::Stars(text.to_owned())),
        };
        if kind != PatternKind::Exact && rest.is_empty() {
            return Err(PatternError::StarAlone(text.to_owned()));
        }
        if rest.contains('*') {
            return Err(PatternError::StarInside(text.to_owned()));
        }
        Ok(NamePattern { kind, name: DomainName::parse(rest)? })
    }

    /// Whether `name` is one of the names that the pattern is about. A name that no host can have is none:
    /// nobody who writes `*.example.com` means labels with dots or zeros in them.
    pub fn matches(&self, name: &DomainName) -> bool {
        if !name.is_host() {
            return false;
        }
        match (self.kind, name.labels_before(&self.name)) {
            (_, None) => false,
            (PatternKind::Exact, Some(labels)) => labels == 0,
            (PatternKind::OneLabel, Some(labels)) => labels == 1,
            (PatternKind::AnyLabels, Some(labels)) => labels >= 1,
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stars = match self.kind {
            PatternKind::Exact => "",
            PatternKind::OneLabel => "*.",
            PatternKind::AnyLabels => "**.",
        };
        write!(f, "{stars}{}", self.name)
    }
}

fn is_stars(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|octet| octet == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap().matches(&DomainName::parse(name).unwrap())
    }

    #[test]
    fn exact() {
        assert!(matches("api.example.com", "API.example.com."));
        assert!(!matches("api.example.com", "www.api.example.com"));
        assert!(!matches("api.example.com", "example.com"));
    }

    #[test]
    fn one_label() {
        assert!(matches("*.example.com", "www.example.com"));
        assert!(!matches("*.example.com", "example.com"));
        assert!(!matches("*.example.com", "a.b.example.com"));
        assert!(!matches("*.example.com", "wwwexample.com"));
    }

    #[test]
    fn any_labels() {
        assert!(matches("**.example.com", "www.example.com"));
        assert!(matches("**.example.com", "a.b.c.example.com"));
        assert!(!matches("**.example.com", "example.com"));
        assert!(!matches("**.example.com", "example.com.org"));
    }

    #[test]
    fn odd_names_match_nothing() {
        let odd = DomainName::from_wire(b"\x03a.b\x07example\x03com").unwrap();
        assert!(!NamePattern::parse("*.example.com").unwrap().matches(&odd));
        assert!(!NamePattern::parse("**.com").unwrap().matches(&odd));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, says) in [
            ("*", "every name"),
            ("**", "every name"),
            ("*.", "every name"),
            ("***.example.com", "** for one or more"),
            ("api-*.example.com", "star inside a label"),
            ("www.*.com", "star inside a label"),
            ("*.*.example.com", "star inside a label"),
            ("*example.com", "star inside a label"),
            ("*..com", "empty label"),
            ("*.10.0.0.1", "cidr"),
        ] {
            let error = NamePattern::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn written_as_read() {
        for text in ["a.example", "*.a.example", "**.a.example"] {
            assert_eq!(NamePattern::parse(text).unwrap().to_string(), text);
        }
    }
}
