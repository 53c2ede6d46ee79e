//! Partial names.

use std::fmt;

use crate::{DomainName, NameError};

/// The end of a name: `ome.com` matches `home.com`, `www.rome.com` and `ome.com` itself; `.ome.com` only names
/// with whole labels in front of it, `x.ome.com` and `a.x.ome.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameSuffix {
    /// A dot stands in front.
    pub whole_labels: bool,
    /// The end that names have, read as a name.
    pub name: DomainName,
}

/// Why an entry of `domainSuffixes` is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuffixError {
    /// A star.
    #[error(
        "{0:?}: a suffix has no stars, anything may stand in front of it: write it without, or move it to domainNames"
    )]
    Star(String),
    /// A partial label that is not ASCII.
    #[error(
        "{0:?}: a part of a label with other letters than a to z means nothing, because names are matched in the form that DNS has for them (xn--...): put a dot in front for whole labels (.{0})"
    )]
    Idna(String),
    /// It is no name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl NameSuffix {
    /// Reads an entry of `domainSuffixes`.
    ///
    /// # Errors
    /// [`SuffixError`] says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, SuffixError> {
        if text.contains('*') {
            return Err(SuffixError::Star(text.to_owned()));
        }
        let rest = text.strip_prefix('.');
        let name = rest.unwrap_or(text);
        let whole_labels = rest.is_some();
        let first = name.split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).next();
        if !whole_labels && first.is_some_and(|label| !label.is_ascii()) {
            return Err(SuffixError::Idna(text.to_owned()));
        }
        Ok(NameSuffix { whole_labels, name: DomainName::parse(name)? })
    }

    pub(super) fn matches(&self, name: &DomainName) -> bool {
        name.to_string().ends_with(&self.to_string())
    }
}

impl fmt::Display for NameSuffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.whole_labels { "." } else { "" }, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(suffix: &str, name: &str) -> bool {
        NameSuffix::parse(suffix).unwrap().matches(&DomainName::parse(name).unwrap())
    }

    #[test]
    fn partial_names() {
        for name in ["home.com", "www.rome.com", "ome.com", "HOME.com."] {
            assert!(matches("Ome.com.", name), "{name}");
        }
        for name in ["home.com.evil.net", "me.com", "homexcom"] {
            assert!(!matches("ome.com", name), "{name}");
        }
    }

    #[test]
    fn whole_labels() {
        assert!(matches(".ome.com", "x.ome.com"));
        assert!(matches(".ome.com", "a.x.ome.com"));
        assert!(!matches(".ome.com", "ome.com"));
        assert!(!matches(".ome.com", "home.com"));
        assert!(matches(".bücher.example", "x.xn--bcher-kva.example"));
        assert!(matches("x.bücher.example", "ax.xn--bcher-kva.example"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, says) in [
            ("", "is empty"),
            (".", "is empty"),
            ("..com", "empty label"),
            ("*.ome.com", "without, or move it to domainNames"),
            ("bücher.example", "(.bücher.example)"),
            ("ome.com/", "has a '/'"),
        ] {
            let error = NameSuffix::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
