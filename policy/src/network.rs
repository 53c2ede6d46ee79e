//! IPv4 and IPv6 networks in one number space.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// The IPv4 part of the number space: `::ffff:0:0/96` (RFC 4291 §2.5.5.2).
pub const IPV4_SPACE: Network = Network { address: 0xffff_0000_0000, length: 96 };

/// A network of the 128-bit number space, in which IPv4 lives at [`IPV4_SPACE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// The first address; host bits are zero.
    pub address: u128,
    /// Prefix length, 0 to 128; an IPv4 length has 96 added.
    pub length: u8,
}

/// Why a text is no network that an Egg can name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not of the form address/length.
    #[error("{0:?} is no network: write address/length, such as 10.0.0.0/8 or 2001:db8::/32")]
    Syntax(String),
    /// An address alone.
    #[error("{0} has no prefix length: write {0}/{1} for this one address")]
    NoLength(IpAddr, u8),
    /// A length that the family does not have.
    #[error("{0:?} has no valid prefix length: an IPv4 network has 0 to 32, an IPv6 network 0 to 128")]
    Length(String),
    /// Bits set behind the prefix.
    #[error(
        "{given:?} has bits set behind its prefix: write {masked}, or {address}/{full} for this one address"
    )]
    HostBits {
        /// The text.
        given: String,
        /// The network that it lies in.
        masked: IpNetwork,
        /// Its address.
        address: IpAddr,
        /// Length of a network of one address.
        full: u8,
    },
    /// IPv4 written as an IPv4-mapped IPv6 address.
    #[error("{0:?} is IPv4 in IPv6 form: write it in IPv4 form{1}")]
    Mapped(String, String),
}

impl Network {
    /// Reads `address/length`.
    ///
    /// # Errors
    /// [`NetworkError`] says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let Some((address, length)) = text.split_once('/') else {
            return Err(match text.parse::<IpAddr>() {
                Ok(address) => NetworkError::NoLength(address, full_length(address)),
                Err(_) => NetworkError::Syntax(text.to_owned()),
            });
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Syntax(text.to_owned()))?;
        // `parse` alone would take "+8" and "08" as well.
        let length = (length.bytes().all(|c| c.is_ascii_digit())
            && (length == "0" || !length.starts_with('0')))
        .then(|| length.parse::<u8>().ok())
        .flatten()
        .filter(|&length| length <= full_length(address))
        .ok_or_else(|| NetworkError::Length(text.to_owned()))?;
        let network = Network { address: to_number(address), length: length + space_length(address) };
        if address.is_ipv6() && IPV4_SPACE.contains(network) {
            let hint = match address.to_canonical() {
                IpAddr::V4(v4) => format!(": {v4}/{}", length - 96),
                IpAddr::V6(_) => String::new(),
            };
            return Err(NetworkError::Mapped(text.to_owned(), hint));
        }
        if network.address & !mask(network.length) != 0 {
            let within =
                IpNetwork::new(address, length).map_err(|_| NetworkError::Length(text.to_owned()))?;
            let masked = IpNetwork::new(within.network(), length).unwrap_or(within);
            return Err(NetworkError::HostBits {
                given: text.to_owned(),
                masked,
                address,
                full: full_length(address),
            });
        }
        Ok(network)
    }

    /// Whether all of `other` lies in this network. Only numbers count here: `::/0` contains every IPv4
    /// network, though an IPv6 rule is not about IPv4.
    pub fn contains(self, other: Network) -> bool {
        self.length <= other.length && (self.address ^ other.address) & mask(self.length) == 0
    }

    /// Whether this is an IPv4 network.
    pub fn is_ipv4(self) -> bool {
        IPV4_SPACE.contains(self)
    }

    /// The network of this prefix length that holds the address.
    pub fn around(address: u128, length: u8) -> Self {
        Network { address: address & mask(length), length }
    }
}

/// The address in the 128-bit number space: IPv4 as `::ffff:a.b.c.d`.
pub fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a number; the IPv4 part of the space comes back as IPv4.
pub fn to_address(number: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(number)).to_canonical()
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

fn full_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn space_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 96 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_space() {
        let ten = Network::parse("10.0.0.0/8").unwrap();
        assert_eq!(ten, Network { address: 0xffff_0a00_0000, length: 104 });
        assert!(ten.is_ipv4() && ten.contains(Network::parse("10.9.0.0/16").unwrap()));
        assert_eq!(Network::parse("0.0.0.0/0").unwrap(), IPV4_SPACE);
        let all = Network::parse("::/0").unwrap();
        assert_eq!(all, Network { address: 0, length: 0 });
        assert!(all.contains(IPV4_SPACE) && !all.is_ipv4());
        assert_eq!(to_address(to_number("192.0.2.7".parse().unwrap())).to_string(), "192.0.2.7");
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, says) in [
            ("", "write address/length"),
            ("example.com/8", "write address/length"),
            ("10.0.0/8", "write address/length"),
            ("010.0.0.0/8", "write address/length"),
            ("10.0.0.0/8/8", "prefix length"),
            ("10.0.0.1", "write 10.0.0.1/32"),
            ("2001:db8::1", "write 2001:db8::1/128"),
            ("10.0.0.0/33", "0 to 32"),
            ("2001:db8::/129", "0 to 128"),
            ("10.0.0.0/", "prefix length"),
            ("10.0.0.0/+8", "prefix length"),
            ("10.0.0.0/08", "prefix length"),
            ("10.0.0.0/255.0.0.0", "prefix length"),
            ("10.0.0.1/8", "write 10.0.0.0/8, or 10.0.0.1/32"),
            ("2001:db8::1/32", "write 2001:db8::/32, or 2001:db8::1/128"),
            ("::ffff:10.0.0.0/104", "IPv4 form: 10.0.0.0/8"),
        ] {
            let error = Network::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
