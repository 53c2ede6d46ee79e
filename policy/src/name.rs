//! Domain names in one canonical form.

use std::fmt;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// Octets of the longest label (RFC 1035 §2.3.4).
pub const MAX_LABEL: usize = 63;
/// Octets of the longest name in wire form: 255 less the root's zero (RFC 1035 §2.3.4); that is 253 characters
/// in text.
pub const MAX_WIRE: usize = 254;

/// A domain name in lower case and A-labels, held in wire form: labels, each behind its length
/// (RFC 1035 §3.1), without the root's zero, as the kernel programs have it. Two names are the same name
/// exactly if they are equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName {
    wire: Vec<u8>,
}

/// Why a text is no domain name that an Egg can name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there, or only the root.
    #[error("the name is empty: write a host name such as api.example.com")]
    Empty,
    /// Two dots in a row, or one at the start.
    #[error("{0:?} has an empty label: a name has one dot between labels, and none at the start")]
    EmptyLabel(String),
    /// A label above [`MAX_LABEL`].
    #[error("label {0:?} has {1} octets: DNS allows {MAX_LABEL}")]
    LabelTooLong(String, usize),
    /// A name above [`MAX_WIRE`].
    #[error("{0:?} has {1} characters: DNS allows 253")]
    TooLong(String, usize),
    /// A character that host names do not have.
    #[error(
        "{name:?} has a {character:?}: write a host name of letters, digits, '-' and '_', without scheme, port or path"
    )]
    Character {
        /// The text.
        name: String,
        /// The first offending character.
        character: char,
    },
    /// An address where a name belongs.
    #[error("{0} is an address, not a name: write it as cidr: {0}/{1}")]
    Address(std::net::IpAddr, u8),
    /// Unicode that IDNA does not map to A-labels.
    #[error("{0:?} is no valid internationalised name (IDNA, UTS 46)")]
    Idna(String),
}

impl DomainName {
    /// Reads a host name as people write it: any case, Unicode (mapped by IDNA, UTS 46), one final dot
    /// allowed. Characters are letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let body = text.strip_suffix(['.', '\u{3002}']).unwrap_or(text);
        if body.is_empty() {
            return Err(NameError::Empty);
        }
        if let Ok(address) = body.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
            return Err(NameError::Address(address, if address.is_ipv4() { 32 } else { 128 }));
        }
        let ascii = to_a_labels(body)?;
        if let Some(character) =
            ascii.chars().find(|&c| c != '.' && !u8::try_from(c).is_ok_and(is_host_octet))
        {
            return Err(NameError::Character { name: text.to_owned(), character });
        }
        let mut wire = Vec::with_capacity(ascii.len() + 1);
        for label in ascii.split('.') {
            match label.len() {
                0 => return Err(NameError::EmptyLabel(text.to_owned())),
                length @ 1..=MAX_LABEL => wire.push(length as u8),
                length => return Err(NameError::LabelTooLong(label.to_owned(), length)),
            }
            wire.extend_from_slice(label.as_bytes());
        }
        if wire.len() > MAX_WIRE {
            return Err(NameError::TooLong(text.to_owned(), ascii.len()));
        }
        Ok(DomainName { wire })
    }

    /// Reads an uncompressed name in wire form without the root's zero, as the kernel programs report it: any
    /// octets, any case. `None` if it is not one whole name, or the root.
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let mut rest = wire;
        while let [length, tail @ ..] = rest {
            let length = usize::from(*length);
            if length == 0 || length > MAX_LABEL {
                return None;
            }
            rest = tail.get(length..)?;
        }
        // Lengths are at most 63, below 'A': lowering every octet leaves them alone.
        (1..=MAX_WIRE).contains(&wire.len()).then(|| DomainName { wire: wire.to_ascii_lowercase() })
    }

    /// The wire form: lower case, without the root's zero.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Whether every label is of letters, digits, `-` and `_` (RFC 1123 §2.1, RFC 8552).
    pub fn is_host(&self) -> bool {
        let mut rest = self.wire.as_slice();
        while let [length, tail @ ..] = rest {
            let (label, after) = tail.split_at(usize::from(*length));
            if !label.iter().all(|&octet| is_host_octet(octet)) {
                return false;
            }
            rest = after;
        }
        true
    }

    /// What this name has in front of `suffix`, if it is below it.
    pub fn before(&self, suffix: &DomainName) -> Option<Self> {
        self.labels_before(suffix).filter(|labels| *labels > 0)?;
        Self::from_wire(&self.wire[..self.wire.len() - suffix.wire.len()])
    }

    /// This name with `suffix` behind it, unless that is too long.
    pub fn with(&self, suffix: &DomainName) -> Option<Self> {
        Self::from_wire(&[self.wire(), suffix.wire()].concat())
    }

    /// How many labels this name has in front of `suffix`: 0 if it is that name, `None` if it is not below it.
    pub fn labels_before(&self, suffix: &DomainName) -> Option<usize> {
        let mut labels = 0;
        let mut rest = self.wire.as_slice();
        while rest.len() >= suffix.wire.len() {
            if rest == suffix.wire {
                return Some(labels);
            }
            labels += 1;
            rest = &rest[1 + usize::from(rest[0])..];
        }
        None
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DomainName({self})")
    }
}

impl fmt::Display for DomainName {
    /// Presentation format without the final dot; odd octets as `\DDD` (RFC 1035 §5.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.wire.as_slice();
        let mut dot = "";
        while let [length, tail @ ..] = rest {
            f.write_str(dot)?;
            dot = ".";
            let (label, after) = tail.split_at(usize::from(*length));
            for &octet in label {
                match octet {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(octet))?,
                    b'!'..=b'~' => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            rest = after;
        }
        Ok(())
    }
}

fn to_a_labels(body: &str) -> Result<String, NameError> {
    if body.is_ascii() {
        // As it would be on the wire: an `xn--` label is taken as it is written.
        return Ok(body.to_ascii_lowercase());
    }
    Uts46::new()
        .to_ascii(body.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore)
        .map(|name| name.into_owned())
        .map_err(|_| NameError::Idna(body.to_owned()))
}

fn is_host_octet(octet: u8) -> bool {
    octet.is_ascii_lowercase() || octet.is_ascii_digit() || matches!(octet, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn one_form_for_every_spelling() {
        assert_eq!(name("API.Example.com.").wire(), b"\x03api\x07example\x03com");
        assert_eq!(name("BÜCHER.example"), name("xn--bcher-kva.example"));
        assert_eq!(name("_dmarc.example.com").to_string(), "_dmarc.example.com");
        assert_eq!(name("com"), DomainName::from_wire(b"\x03COM").unwrap());
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, says) in [
            ("", "is empty"),
            (".", "is empty"),
            ("a..b", "empty label"),
            (".example.com", "empty label"),
            ("example.com..", "empty label"),
            ("ü..", "empty label"),
            ("https://example.com/x", "has a ':'"),
            ("exa mple.com", "has a ' '"),
            ("10.0.0.1", "cidr: 10.0.0.1/32"),
            ("2001:db8::1", "cidr: 2001:db8::1/128"),
            ("\u{200d}.example", "IDNA"),
        ] {
            let error = DomainName::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn limits_of_dns() {
        assert!(DomainName::parse(&"a".repeat(63)).is_ok());
        assert!(matches!(DomainName::parse(&"a".repeat(64)), Err(NameError::LabelTooLong(_, 64))));
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert_eq!(name(&longest).wire().len(), 254);
        assert!(matches!(DomainName::parse(&format!("{longest}b")), Err(NameError::TooLong(_, 254))));
    }

    #[test]
    fn wire_form_is_checked() {
        for bad in [&b""[..], b"\x00", b"\x03com\x00", b"\x04com", b"\x03com\x03", b"\xc0\x0c"] {
            assert_eq!(DomainName::from_wire(bad), None, "{bad:?}");
        }
        assert_eq!(DomainName::from_wire(b"\x03a.\x07").unwrap().to_string(), "a\\.\\007");
    }

    #[test]
    fn counts_labels_in_front() {
        let name_of = |text| name(text).labels_before(&name("example.com"));
        assert_eq!(name_of("example.com"), Some(0));
        assert_eq!(name_of("www.example.com"), Some(1));
        assert_eq!(name_of("a.b.example.com"), Some(2));
        assert_eq!(name_of("badexample.com"), None);
        assert_eq!(name_of("com"), None);
    }
}
