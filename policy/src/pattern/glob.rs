//! Names with stars inside labels, or for labels that are not the first.

use std::fmt;

use super::{DOTS, PatternError, PatternKind, is_stars};
use crate::{DomainName, MAX_WIRE, NameError};

/// `api-*.example.com`, `www.*.com`, `**.*-eu.example.com`: a star beside other characters of a label is any
/// number of characters of that label, or none; a star that is a whole label is one label; two stars in
/// front are one or more labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// `**.` stands in front.
    pub(crate) any_labels: bool,
    /// The labels, in lower case and A-labels, with their stars.
    pub(crate) labels: Vec<String>,
}

impl Glob {
    /// Reads `rest`, which stands behind the stars of `kind` in `text`.
    pub(super) fn parse(kind: PatternKind, rest: &str, text: &str) -> Result<Self, PatternError> {
        let mut labels = match kind {
            PatternKind::OneLabel => vec!["*".to_owned()],
            PatternKind::Exact | PatternKind::AnyLabels => Vec::new(),
        };
        for label in rest.strip_suffix(DOTS).unwrap_or(rest).split(DOTS) {
            labels.push(read_label(label, text)?);
        }
        // The shortest name that it could match, in wire form.
        let shortest = labels.iter().map(|label| 1 + label.replace('*', "").len().max(1)).sum::<usize>();
        if shortest > MAX_WIRE {
            return Err(NameError::TooLong(text.to_owned(), shortest - 1).into());
        }
        Ok(Glob { any_labels: kind == PatternKind::AnyLabels, labels })
    }

    pub(super) fn matches(&self, name: &DomainName) -> bool {
        let name = name.to_string();
        let labels: Vec<&str> = name.split('.').collect();
        let in_front = match labels.len().checked_sub(self.labels.len()) {
            Some(in_front) if self.any_labels && in_front >= 1 => in_front,
            Some(0) if !self.any_labels => 0,
            _ => return false,
        };
        self.labels.iter().zip(&labels[in_front..]).all(|(pattern, label)| label_matches(pattern, label))
    }
}

fn read_label(label: &str, text: &str) -> Result<String, PatternError> {
    if label.is_empty() {
        return Err(NameError::EmptyLabel(text.to_owned()).into());
    }
    if label.contains("**") {
        return Err(PatternError::Stars(text.to_owned()));
    }
    if is_stars(label) {
        return Ok(label.to_owned());
    }
    if !label.contains('*') {
        return Ok(DomainName::parse(label)?.to_string());
    }
    if !label.is_ascii() {
        return Err(PatternError::StarInIdna(text.to_owned()));
    }
    // Without its stars it has to be a label.
    DomainName::parse(&label.replace('*', ""))?;
    Ok(label.to_ascii_lowercase())
}

/// What stands between stars is taken where it comes first: that leaves most for what is behind. So no star is tried twice.
fn label_matches(pattern: &str, label: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(last) = parts.next_back() else { return pattern == label };
    let Some(mut rest) = label.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
        return false;
    };
    parts.all(|part| match rest.split_once(part) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.any_labels { "**." } else { "" }, self.labels.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::super::NamePattern;
    use crate::DomainName;

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap().matches(&DomainName::parse(name).unwrap())
    }

    #[test]
    fn a_star_stays_in_its_label() {
        assert!(matches("API-*.example.com.", "api-7.EXAMPLE.com"));
        assert!(matches("api-*.example.com", "api-.example.com"));
        assert!(!matches("api-*.example.com", "api-a.b.example.com"));
        assert!(!matches("api-*.example.com", "api.example.com"));
        assert!(!matches("api-*.example.com", "x.api-7.example.com"));
        assert!(matches("*-eu.example.com", "db-eu.example.com"));
        assert!(matches("*a*b*.example.com", "xaxbx.example.com"));
        assert!(!matches("*a*b*.example.com", "ba.example.com"));
        assert!(matches("*.a*.bücher.example", "x.ab.xn--bcher-kva.example"));
        assert!(!matches("ab*ba.example.com", "aba.example.com"));
        assert!(matches("a*b*b.example.com", "abb.example.com"));
    }

    #[test]
    fn many_stars_take_no_longer() {
        let pattern = format!("{}b.example.com", "*a".repeat(25));
        assert!(!matches(&pattern, &format!("{}.example.com", "a".repeat(63))));
    }

    #[test]
    fn a_star_alone_is_one_label_and_two_are_more() {
        assert!(matches("www.*.com", "www.x.com"));
        assert!(!matches("www.*.com", "www.com"));
        assert!(!matches("www.*.com", "www.x.y.com"));
        assert!(matches("**.*-x.com", "a.b.c-x.com"));
        assert!(!matches("**.*-x.com", "c-x.com"));
    }
}
