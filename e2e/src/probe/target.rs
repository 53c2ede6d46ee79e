//! Where to connect to: `tcp://api.shop.test:443`, `udp6://n1.fresh.test:123`, `icmp://198.18.0.80`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One destination of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Target {
    /// How to talk to it.
    pub protocol: Protocol,
    /// Which of its addresses to take.
    pub family: Family,
    /// A name or an address.
    pub host: String,
    /// 0 for ICMP.
    pub port: u16,
}

/// How to talk to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A connection.
    Tcp,
    /// One datagram and its echo.
    Udp,
    /// One echo request, of ICMP or ICMPv6.
    Icmp,
}

/// Which addresses of a name count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The first one.
    Any,
    /// The first IPv4 address.
    V4,
    /// The first IPv6 address.
    V6,
}

impl Family {
    /// Whether `address` counts.
    pub fn contains(self, address: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "{text:?} is no target: write tcp://HOST:PORT, udp://HOST:PORT or icmp://HOST, with 4 or 6 after the protocol to choose the family"
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(error)?;
        let (scheme, family) = match scheme.as_bytes().last() {
            Some(b'4') => (&scheme[..scheme.len() - 1], Family::V4),
            Some(b'6') => (&scheme[..scheme.len() - 1], Family::V6),
            _ => (scheme, Family::Any),
        };
        let protocol = match scheme {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" => Protocol::Icmp,
            _ => return Err(error()),
        };
        let (host, port) = match protocol {
            Protocol::Icmp => (rest, 0),
            _ => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(error)?;
                (host, port.parse().map_err(|_| error())?)
            }
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        Ok(Target { protocol, family, host, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        };
        let family = match self.family {
            Family::Any => "",
            Family::V4 => "4",
            Family::V6 => "6",
        };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{protocol}{family}://{open}{}{close}", self.host)?;
        match self.protocol {
            Protocol::Icmp => Ok(()),
            _ => write!(f, ":{}", self.port),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_survives_printing() {
        for text in [
            "tcp://api.test:443",
            "udp6://n1.fresh.test:123",
            "tcp://[2001:db8::1]:80",
            "icmp4://198.18.0.80",
            "icmp://[::1]",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        for text in ["api.test:443", "http://api.test", "tcp://api.test", "tcp://api.test:http", "udp5://a:1"]
        {
            assert!(text.parse::<Target>().unwrap_err().contains("write tcp://HOST:PORT"), "{text}");
        }
    }
}
