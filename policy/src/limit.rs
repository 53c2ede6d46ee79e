//! Bandwidth limits as they are written.

use l7egg_crds::{PolicySpec, ShapingLimit, ShapingScope};

use crate::Problem;

/// Lowest and highest rate, in bits per second: 64 kbit/s and 100 Gbit/s.
pub const MIN_RATE: u64 = 64_000;
/// See [`MIN_RATE`].
pub const MAX_RATE: u64 = 100_000_000_000;
/// Smallest burst in bytes: one Ethernet frame.
const MIN_BURST: u64 = 1514;
/// Longest burst, as seconds of the rate.
const MAX_BURST_SECONDS: u64 = 1;

/// A bandwidth limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bits per second.
    pub bits_per_second: u64,
    /// Bytes that may be sent at once after a silence, if that is said.
    pub burst: Option<u64>,
    /// Who shares the rate.
    pub scope: ShapingScope,
}

impl Limit {
    /// The egress limit of a policy, if it has one that can be read.
    #[must_use]
    pub fn of(spec: &PolicySpec) -> Option<Self> {
        let limit = spec.shaping.as_ref()?.egress.as_ref()?;
        read(limit, "", &mut Vec::new())
    }
}

/// Adds what is wrong with the limits of a policy.
pub(crate) fn check(spec: &PolicySpec, problems: &mut Vec<Problem>) {
    let Some(shaping) = &spec.shaping else { return };
    match &shaping.egress {
        Some(limit) => {
            read(limit, "spec.shaping.egress", problems);
        }
        None => problems.push(Problem::invalid(
            "spec.shaping",
            "write egress: {rate: 20M}, or leave shaping out: it says nothing",
        )),
    }
}

/// Bits per second, as a Kubernetes quantity (`20M`, `1500k`, `1Gi`) or as tc(8) and older versions of l7egg
/// write it (`20mbit`).
///
/// # Errors
/// What is wrong, and what to write.
pub fn rate(text: &str) -> Result<u64, String> {
    let bits = number(text, true).ok_or_else(|| {
        format!(
            "{text:?} is not a rate: write bits per second as a quantity, such as 20M or 500k, or as tc does, such as 20mbit"
        )
    })?;
    if !(u128::from(MIN_RATE)..=u128::from(MAX_RATE)).contains(&bits) {
        return Err(format!("{text:?} is {bits} bits per second: from 64k to 100G can be enforced"));
    }
    Ok(bits as u64)
}

fn read(limit: &ShapingLimit, path: &str, problems: &mut Vec<Problem>) -> Option<Limit> {
    let bits_per_second = match rate(&limit.rate.0) {
        Ok(rate) => rate,
        Err(error) => {
            problems.push(Problem::invalid(format!("{path}.rate"), error));
            return None;
        }
    };
    let burst = match &limit.burst {
        None => None,
        Some(burst) => match bytes(&burst.0, bits_per_second) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                problems.push(Problem::invalid(format!("{path}.burst"), error));
                return None;
            }
        },
    };
    Some(Limit { bits_per_second, burst, scope: limit.scope })
}

fn bytes(text: &str, bits_per_second: u64) -> Result<u64, String> {
    let bytes = number(text, false)
        .ok_or_else(|| format!("{text:?} is not a number of bytes: write a quantity, such as 64Ki"))?;
    let most = (bits_per_second / 8 * MAX_BURST_SECONDS).max(MIN_BURST);
    if !(u128::from(MIN_BURST)..=u128::from(most)).contains(&bytes) {
        return Err(format!(
            "{text:?} is {bytes} bytes: from {MIN_BURST}, a frame, to {most}, a second of the rate, can be enforced"
        ));
    }
    Ok(bytes as u64)
}

/// A quantity (apimachinery's pkg/api/resource: sign, digits, fraction, suffix or exponent) that is a whole
/// number, or, where `rates` are meant, one of tc's.
fn number(text: &str, rates: bool) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let (multiplier, divisor) = suffix_of(suffix, rates)?;
    let scale = 10u128.pow(fraction.len() as u32);
    let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let product = digits.checked_mul(multiplier)?;
    product.is_multiple_of(scale * divisor).then_some(product / (scale * divisor))
}

fn suffix_of(suffix: &str, rates: bool) -> Option<(u128, u128)> {
    const K: u128 = 1000;
    const KI: u128 = 1024;
    let exponent = suffix.strip_prefix(['e', 'E']).and_then(|rest| rest.parse::<i32>().ok());
    if let Some(exponent @ -9..=18) = exponent {
        let power = 10u128.pow(exponent.unsigned_abs());
        return Some(if exponent < 0 { (1, power) } else { (power, 1) });
    }
    let multiplier = match suffix {
        "n" => return Some((1, K * K * K)),
        "u" => return Some((1, K * K)),
        "m" => return Some((1, K)),
        "" => 1,
        "k" => K,
        "M" => K.pow(2),
        "G" => K.pow(3),
        "T" => K.pow(4),
        "P" => K.pow(5),
        "E" => K.pow(6),
        "Ki" => KI,
        "Mi" => KI.pow(2),
        "Gi" => KI.pow(3),
        "Ti" => KI.pow(4),
        "Pi" => KI.pow(5),
        "Ei" => KI.pow(6),
        _ if rates => match suffix.to_ascii_lowercase().as_str() {
            "bit" => 1,
            "kbit" => K,
            "mbit" => K.pow(2),
            "gbit" => K.pow(3),
            "tbit" => K.pow(4),
            "kibit" => KI,
            "mibit" => KI.pow(2),
            "gibit" => KI.pow(3),
            _ => return None,
        },
        _ => return None,
    };
    Some((multiplier, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, bits) in [
            ("20M", 20_000_000),
            ("20mbit", 20_000_000),
            ("20Mbit", 20_000_000),
            ("1.5M", 1_500_000),
            ("64k", 64_000),
            ("64kbit", 64_000),
            ("100G", 100_000_000_000),
            ("1Gi", 1 << 30),
            ("500000", 500_000),
            ("500000bit", 500_000),
            ("2e6", 2_000_000),
            ("5E5", 500_000),
            ("100000000m", 100_000),
            ("0.5gbit", 500_000_000),
        ] {
            assert_eq!(rate(text), Ok(bits), "{text}");
        }
        for text in [
            "",
            "fast",
            "-1M",
            "1.5",
            "63999",
            "101G",
            "20mbps",
            "20 M",
            "M",
            "1.2.3M",
            "99999999999999999999",
            "1e99",
            "20MB",
            "999999999999999999.999E",
            "999999999999999999.999999999e18",
        ] {
            let error = rate(text).unwrap_err();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn bursts_are_bytes() {
        assert_eq!(bytes("64Ki", 20_000_000), Ok(65_536));
        for text in ["64kbit", "100", "1Gi", "x"] {
            assert!(bytes(text, 20_000_000).is_err(), "{text}");
        }
    }
}
