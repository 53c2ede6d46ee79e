//! Patterns over domain names.

mod glob;
mod labels;
mod regex;
mod suffix;

use std::fmt;

pub use glob::Glob;
pub use labels::{LabelPattern, PatternKind};
pub use regex::{MAX_REGEX, NameRegex, RegexError};
pub use suffix::{NameSuffix, SuffixError};

use crate::{DomainName, NameError};

/// What UTS 46 takes for a dot.
const DOTS: [char; 4] = ['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'];

/// What an Egg may write for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// An entry of `domainNames` without a star, or with stars for whole labels in front.
    Labels(LabelPattern),
    /// Any other entry of `domainNames`.
    Glob(Glob),
    /// An entry of `domainSuffixes`.
    Suffix(NameSuffix),
    /// An entry of `domainRegex`.
    Regex(NameRegex),
}

/// Why an entry of `domainNames` is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Only stars.
    #[error(
        "{0:?} would match every name: put a name behind the star (*.example.com), or allow addresses with cidr"
    )]
    StarAlone(String),
    /// More than two stars as first label, or more than one in a row elsewhere.
    #[error("{0:?}: write * for one label or a part of it, ** in front for one or more labels")]
    Stars(String),
    /// A star in a label that is not ASCII.
    #[error(
        "{0:?}: a star in a label with other letters than a to z means nothing, because names are matched in the form that DNS has for them (xn--...): write the names one by one"
    )]
    StarInIdna(String),
    /// What is not a star is no name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl NamePattern {
    /// Reads an entry of `domainNames`.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (stars, rest) = match text.split_once(DOTS) {
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
        if kind != PatternKind::Exact && rest.chars().all(|it| it == '*' || DOTS.contains(&it)) {
            return Err(PatternError::StarAlone(text.to_owned()));
        }
        if rest.contains('*') {
            return Glob::parse(kind, rest, text).map(NamePattern::Glob);
        }
        Ok(NamePattern::Labels(LabelPattern { kind, name: DomainName::parse(rest)? }))
    }

    /// Reads an entry of `domainSuffixes`.
    ///
    /// # Errors
    /// [`SuffixError`] says what is wrong and what to write.
    pub fn parse_suffix(text: &str) -> Result<Self, SuffixError> {
        NameSuffix::parse(text).map(NamePattern::Suffix)
    }

    /// Reads an entry of `domainRegex`.
    ///
    /// # Errors
    /// [`RegexError`] says what is wrong and what to write.
    pub fn parse_regex(text: &str) -> Result<Self, RegexError> {
        NameRegex::parse(text).map(NamePattern::Regex)
    }

    /// Whether `name` is one of the names that the pattern is about. A name that no host can have is none:
    /// nobody who writes `*.example.com` means labels with dots or zeros in them.
    pub fn matches(&self, name: &DomainName) -> bool {
        name.is_host()
            && match self {
                NamePattern::Labels(labels) => labels.matches(name),
                NamePattern::Glob(glob) => glob.matches(name),
                NamePattern::Suffix(suffix) => suffix.matches(name),
                NamePattern::Regex(regex) => regex.matches(name),
            }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamePattern::Labels(labels) => labels.fmt(f),
            NamePattern::Glob(glob) => glob.fmt(f),
            NamePattern::Suffix(suffix) => write!(f, "domainSuffixes {suffix}"),
            NamePattern::Regex(regex) => write!(f, "domainRegex {regex}"),
        }
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
        assert!(!NamePattern::parse("a*.example.com").unwrap().matches(&odd));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, says) in [
            ("*", "every name"),
            ("**", "every name"),
            ("*.", "every name"),
            ("*.*", "every name"),
            ("**.*.", "every name"),
            ("*。*", "every name"),
            ("***.example.com", "** in front for one or more"),
            ("a**b.example.com", "** in front for one or more"),
            ("www.**.com", "** in front for one or more"),
            ("bü*.example.com", "one by one"),
            ("a*..com", "empty label"),
            ("a*/b.com", "has a '/'"),
            ("*..com", "empty label"),
            ("*.10.0.0.1", "cidr"),
        ] {
            let error = NamePattern::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    /// Found by fuzzing: with another dot behind the star it was a pattern of another kind, and `**` was refused.
    #[test]
    fn every_dot_is_one() {
        for (text, ascii) in
            [("*。m", "*.m"), ("**．a.example", "**.a.example"), ("a*｡example", "a*.example")]
        {
            assert_eq!(NamePattern::parse(text).unwrap(), NamePattern::parse(ascii).unwrap(), "{text}");
        }
    }

    #[test]
    fn written_as_read() {
        for text in ["a.example", "*.a.example", "**.a.example", "a*.b.example", "**.*-x.*.example"] {
            assert_eq!(NamePattern::parse(text).unwrap().to_string(), text);
        }
    }
}
