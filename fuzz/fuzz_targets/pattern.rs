//! Any text as a pattern of each kind: refused with a reason, or a pattern that means the same when it is written
//! out and read again.
//!
//! The first line is the pattern, the second a name.

#![no_main]

use l7egg_policy::{DomainName, NamePattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (text, name) = input.split_once('\n').unwrap_or((input, ""));
    let name = DomainName::parse(name).ok();
    if let Some(name) = &name {
        let again = DomainName::parse(&name.to_string()).expect("what is written is a name");
        assert_eq!(&again, name);
        assert_eq!(DomainName::from_wire(name.wire()).as_ref(), Some(name));
    }
    check(NamePattern::parse(text), |text| NamePattern::parse(text).ok(), name.as_ref());
    check(NamePattern::parse_suffix(text), read_suffix, name.as_ref());
    check(NamePattern::parse_regex(text), read_regex, name.as_ref());
});

fn check<E: std::error::Error>(
    parsed: Result<NamePattern, E>,
    read_again: impl Fn(&str) -> Option<NamePattern>,
    name: Option<&DomainName>,
) {
    let pattern = match parsed {
        Ok(pattern) => pattern,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let written = pattern.to_string();
    let again = read_again(&written);
    assert_eq!(again.as_ref(), Some(&pattern), "{written:?}");
    if let (Some(name), Some(again)) = (name, &again) {
        let upper = DomainName::parse(&name.to_string().to_ascii_uppercase()).expect("the same name");
        assert_eq!(pattern.matches(name), again.matches(&upper));
    }
}

fn read_suffix(written: &str) -> Option<NamePattern> {
    NamePattern::parse_suffix(written.strip_prefix("domainSuffixes ")?).ok()
}

fn read_regex(written: &str) -> Option<NamePattern> {
    NamePattern::parse_regex(written.strip_prefix("domainRegex ")?).ok()
}
