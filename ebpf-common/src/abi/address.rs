//! Addresses.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

/// An address in network order, IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2). Kept in words: bytes would be copied and
/// compared one by one in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    words: [u32; 4],
}

impl Address {
    /// `::`.
    pub const UNSPECIFIED: Self = Self { words: [0; 4] };

    /// From words of four bytes in network order, as they are in memory.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// From bytes in network order.
    #[inline(always)]
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        Self::from_words([
            word([b[0], b[1], b[2], b[3]]),
            word([b[4], b[5], b[6], b[7]]),
            word([b[8], b[9], b[10], b[11]]),
            word([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// IPv4, mapped.
    #[inline(always)]
    pub const fn mapped(v4: [u8; 4]) -> Self {
        Self::from_words([0, 0, MAPPED, word(v4)])
    }

    /// The words.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// The bytes in network order.
    #[inline(always)]
    pub const fn bytes(&self) -> [u8; 16] {
        let [a, b, c, d] = self.words;
        let [a, b, c, d] = [a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes()];
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }

    /// Whether it is an IPv4 one.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] | self.words[1] | (self.words[2] ^ MAPPED) == 0
    }

    /// The last four bytes: the address, if it is an IPv4 one.
    #[inline(always)]
    pub const fn v4(&self) -> [u8; 4] {
        self.words[3].to_ne_bytes()
    }

    /// 127.0.0.0/8 and ::1.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            self.words[3].to_ne_bytes()[0] == 127
        } else {
            self.words[0] | self.words[1] | self.words[2] | (self.words[3] ^ word([0, 0, 0, 1])) == 0
        }
    }

    /// 0.0.0.0 and ::.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.words[0] | self.words[1] | self.words[3] == 0 && (self.words[2] == 0 || self.words[2] == MAPPED)
    }

    /// 224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291 §2.7).
    #[inline(always)]
    pub const fn is_multicast(&self) -> bool {
        if self.is_v4() {
            self.words[3].to_ne_bytes()[0] & 0xf0 == 0xe0
        } else {
            self.words[0].to_ne_bytes()[0] == 0xff
        }
    }

    /// fe80::/10 (RFC 4291 §2.5.6).
    #[inline(always)]
    pub const fn is_v6_link_local(&self) -> bool {
        self.words[0] & word([0xff, 0xc0, 0, 0]) == word([0xfe, 0x80, 0, 0])
    }
}

/// Bytes 8 to 11 of a mapped address.
const MAPPED: u32 = word([0, 0, 0xff, 0xff]);

#[inline(always)]
const fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::mapped(v4.octets()),
            IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }
}

/// Of a mapped one, IPv4.
impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        Ipv6Addr::from(address.bytes()).to_canonical()
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn bytes_and_words_are_the_same() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        assert_eq!(Address::from_bytes(bytes).bytes(), bytes);
        assert_eq!(address("192.0.2.1"), Address::mapped([192, 0, 2, 1]));
        assert_eq!(
            format!("{:?} {:?}", address("192.0.2.1"), address("2001:db8::1")),
            "192.0.2.1 2001:db8::1"
        );
    }

    #[test]
    fn kinds_of_addresses() {
        for (text, is_v4, is_loopback, is_unspecified, is_multicast, is_link_local) in [
            ("127.1.2.3", true, true, false, false, false),
            ("::1", false, true, false, false, false),
            ("0.0.0.0", true, false, true, false, false),
            ("::", false, false, true, false, false),
            ("0.0.0.1", true, false, false, false, false),
            ("239.1.1.1", true, false, false, true, false),
            ("ff02::1", false, false, false, true, false),
            ("febf::1", false, false, false, false, true),
            ("fec0::1", false, false, false, false, false),
            ("::ffff", false, false, false, false, false),
        ] {
            let address = address(text);
            assert_eq!(address.is_v4(), is_v4, "{text}");
            assert_eq!(address.is_loopback(), is_loopback, "{text}");
            assert_eq!(address.is_unspecified(), is_unspecified, "{text}");
            assert_eq!(address.is_multicast(), is_multicast, "{text}");
            assert_eq!(address.is_v6_link_local(), is_link_local, "{text}");
        }
    }
}
