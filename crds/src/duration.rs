//! Times in Eggs, as Go writes them (time.ParseDuration): `30s`, `5m`, `1h30m`.

use kube::core::Duration;
use serde::{Deserialize, Deserializer, de::Error};

/// Longest text of one, in bytes.
const MAX_TEXT: usize = 64;
/// Most digits in front of a point: hours of so many are still no more than a `std::time::Duration` holds.
const MAX_DIGITS: usize = 12;

/// Reads one that may be left out. kube's own parser panics at times that it cannot hold, and at signs in the middle, so it sees only
/// what it can read.
pub(crate) fn optional<'de, D>(deserializer: D) -> Result<Option<Duration>, D::Error>
where
    D: Deserializer<'de>,
{
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    if !is_plain(&text) {
        return Err(D::Error::custom(format!("{:?} is not a time: write 30s, 5m or 24h", cut(&text))));
    }
    text.parse().map(Some).map_err(|error| D::Error::custom(format!("{text:?} is not a time: {error}")))
}

fn is_plain(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numbers = unsigned.split(char::is_alphabetic).filter(|number| !number.is_empty());
    text.len() <= MAX_TEXT
        && numbers.into_iter().all(|number| {
            let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
            whole.len() <= MAX_DIGITS
                && [whole, fraction].iter().all(|part| part.bytes().all(|it| it.is_ascii_digit()))
        })
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use crate::Dns;

    fn read(text: &str) -> Result<Dns, String> {
        serde_json::from_value(json!({"minTTL": text})).map_err(|error| error.to_string())
    }

    #[test]
    fn as_go_writes_them() {
        for (text, seconds) in
            [("30s", 30.0), ("5m", 300.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("0", 0.0), ("100ms", 0.1)]
        {
            let time: std::time::Duration = read(text).unwrap().min_ttl.unwrap().into();
            assert_eq!(time.as_secs_f64(), seconds, "{text}");
        }
        assert!(read("-5s").unwrap().min_ttl.unwrap().is_negative());
        assert_eq!(serde_json::from_value::<Dns>(json!({"minTTL": null})).unwrap().min_ttl, None);
    }

    #[test]
    fn what_no_duration_holds_is_an_error() {
        for text in [
            "99999999999999999999h",
            "1s-5s",
            "--5s",
            "1e400h",
            "infs",
            "NaNs",
            "1..5s",
            "s",
            "5",
            "5 s",
            "",
            &"1h".repeat(100),
        ] {
            let is_error = read(text).is_err() || text.is_empty();
            assert!(is_error, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[-+.0-9einfNahmsu]{0,70}|.{0,20}") {
            let _ = read(&text);
        }
    }
}
