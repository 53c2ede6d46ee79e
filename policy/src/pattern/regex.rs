//! Regular expressions over names.

use std::fmt;
use std::sync::OnceLock;

use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::{Anchored, Input, meta};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, Look};

use crate::DomainName;

/// Characters of the longest regular expression.
pub const MAX_REGEX: usize = 1024;
/// Bytes of the largest one once its repetitions are written out: a few thousand characters.
const MAX_NFA: usize = 256 << 10;
/// Deepest nesting of groups.
const MAX_NESTING: u32 = 50;

/// A regular expression (syntax of the crate `regex`, without Unicode classes) over a whole name: anchored at
/// both ends, in any case; the name is in lower case and A-labels, without the final dot.
#[derive(Clone, Debug)]
pub struct NameRegex {
    text: String,
    hir: Hir,
    size: usize,
    /// Only the oracle needs it.
    matcher: OnceLock<Option<meta::Regex>>,
}

/// Why an entry of `domainRegex` is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// Nothing there.
    #[error("the regular expression is empty: write one for whole names, such as (de|en)\\.wikipedia\\.org")]
    Empty,
    /// Above [`MAX_REGEX`].
    #[error("the regular expression has {0} characters: {MAX_REGEX} is the most, divide it into several")]
    TooLong(usize),
    /// Other characters than ASCII.
    #[error(
        "{0:?} has a {1:?}: names are matched in the form that DNS has for them, so write names in other scripts as xn--..."
    )]
    NotAscii(String, char),
    /// It cannot be read.
    #[error(
        "{text:?} is no regular expression: {why} (at character {at}); write one such as (de|en)\\.wikipedia\\.org"
    )]
    Syntax {
        /// The text.
        text: String,
        /// What the parser says.
        why: String,
        /// Where, from 1.
        at: usize,
    },
    /// Above what is set aside for one, with its repetitions written out.
    #[error(
        "{0:?} is too large: written out it needs more than {MAX_NFA} bytes; use fewer or smaller repetitions such as {{1,63}}, or + and *"
    )]
    TooLarge(String),
}

impl NameRegex {
    /// Reads an entry of `domainRegex`.
    ///
    /// # Errors
    /// [`RegexError`] says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, RegexError> {
        if text.is_empty() {
            return Err(RegexError::Empty);
        }
        if text.len() > MAX_REGEX {
            return Err(RegexError::TooLong(text.len()));
        }
        if let Some(character) = text.chars().find(|character| !character.is_ascii()) {
            return Err(RegexError::NotAscii(text.to_owned(), character));
        }
        let hir = ParserBuilder::new()
            .case_insensitive(true)
            .unicode(false)
            .utf8(false)
            .nest_limit(MAX_NESTING)
            .build()
            .parse(text)
            .map_err(|error| syntax(text, &error))?;
        // Stops at the limit: repetitions of repetitions are never written out.
        let size = written_out(&hir).ok_or_else(|| RegexError::TooLarge(text.to_owned()))?;
        Ok(NameRegex { text: text.to_owned(), hir, size, matcher: OnceLock::new() })
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How large it is with its repetitions written out.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn hir(&self) -> &Hir {
        &self.hir
    }

    pub(super) fn matches(&self, name: &DomainName) -> bool {
        let name = name.to_string();
        let matcher = self.matcher.get_or_init(|| matcher(&self.hir));
        matcher.as_ref().is_some_and(|regex| regex.is_match(Input::new(&name).anchored(Anchored::Yes)))
    }
}

/// Reading checked that it can be built.
fn matcher(hir: &Hir) -> Option<meta::Regex> {
    let whole = Hir::concat(vec![Hir::look(Look::Start), hir.clone(), Hir::look(Look::End)]);
    meta::Regex::builder().configure(meta::Config::new().utf8_empty(false)).build_from_hir(&whole).ok()
}

/// States with repetitions written out, unless they are too many.
fn written_out(hir: &Hir) -> Option<usize> {
    let config =
        thompson::Config::new().utf8(false).which_captures(WhichCaptures::None).nfa_size_limit(Some(MAX_NFA));
    thompson::Compiler::new().configure(config).build_from_hir(hir).ok().map(|nfa| nfa.states().len())
}

fn syntax(text: &str, error: &regex_syntax::Error) -> RegexError {
    let (why, at) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.column),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), error.span().start.column),
        other => (other.to_string(), 1),
    };
    RegexError::Syntax { text: text.to_owned(), why, at }
}

impl PartialEq for NameRegex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for NameRegex {}

impl fmt::Display for NameRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(regex: &str, name: &str) -> bool {
        NameRegex::parse(regex).unwrap().matches(&DomainName::parse(name).unwrap())
    }

    #[test]
    fn anchored_at_both_ends_in_any_case() {
        assert!(matches(r"(de|en)\.wikipedia\.org", "EN.wikipedia.org."));
        assert!(matches(r"(DE|en)\.wikipedia\.org", "de.wikipedia.org"));
        assert!(!matches(r"(de|en)\.wikipedia\.org", "x.de.wikipedia.org"));
        assert!(!matches(r"(de|en)\.wikipedia\.org", "de.wikipedia.org.evil.net"));
        // Every alternative, not the first that matches somewhere.
        assert!(matches(r"a|a\.b|^a\.c$", "a.b"));
        assert!(matches(r"a|a\.b|^a\.c$", "a.c"));
        assert!(matches(r"(?:a+?)(?:\.b)?", "aaa.b"));
        assert!(matches(r".*\bapi\b.*", "x.api.example.com"));
        assert!(!matches(r".*\bapi\b.*", "x.apis.example.com"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, says) in [
            ("", "is empty"),
            ("(a", "unclosed group (at character 1)"),
            ("a**?++(", "unclosed group"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?=a)b", "look-around"),
            (r"\p{Greek}", "Unicode"),
            ("bücher", "xn--"),
            ("((a{100}){100}){100}", "is too large"),
            (&"a".repeat(1025), "1025 characters: 1024"),
            (&format!("{}a{}", "(".repeat(60), ")".repeat(60)), "exceed"),
        ] {
            let error = NameRegex::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
