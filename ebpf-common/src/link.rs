//! What is on a pod's interface besides packets with ports: neighbours' questions, control messages, fragments.

use crate::abi::{Address, protocol};
use crate::packet::{Bytes, Packet};

/// Ethertypes (IEEE 802, <https://www.iana.org/assignments/ieee-802-numbers>).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of an ARP message for IPv4 on Ethernet (RFC 826).
pub const ARP: usize = 28;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;
/// A neighbour solicitation (RFC 4861 §4.3).
const SOLICITATION: u8 = 135;
/// Bytes of a neighbour solicitation or advertisement (RFC 4861 §4.3, §4.4) with the option for the longest addresses of a link, which
/// are InfiniBand's (RFC 4391 §9.3).
const DISCOVERY_MAX: usize = 24 + 24;
/// IGMP (RFC 3376).
const IGMP: u8 = 2;

/// What a packet without ports is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nothing that is known here: a packet like any other.
    Other,
    /// Of the link itself and for nobody beyond: neighbour discovery (RFC 4861), multicast membership (RFC 3376,
    /// RFC 3810). A router does not pass it on, whatever its destination is.
    Link,
    /// An echo request with this identifier (RFC 792, RFC 4443).
    EchoRequest(u16),
    /// An echo reply with this identifier.
    EchoReply(u16),
    /// An error about a packet, which it quotes from this offset on.
    Error(usize),
}

/// Says what a packet is for.
#[inline(always)]
pub fn control<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> Control {
    let four = packet.destination.is_v4();
    if packet.protocol == IGMP && four {
        let ttl = bytes.read::<1>(8).unwrap_or([0]);
        let is_link = ttl[0] == 1 && packet.destination.is_multicast();
        return if is_link { Control::Link } else { Control::Other };
    }
    if packet.protocol != protocol::ICMP {
        return Control::Other;
    }
    let at = packet.transport as usize;
    let Some([kind, _, _, _, high, low]) = bytes.read::<6>(at) else { return Control::Other };
    let ident = u16::from_be_bytes([high, low]);
    match (four, kind) {
        (true, 8) | (false, 128) => Control::EchoRequest(ident),
        (true, 0) | (false, 129) => Control::EchoReply(ident),
        // Unreachable, time exceeded, parameter problem; packet too big.
        (true, 3 | 11 | 12) | (false, 1..=4) => Control::Error(at + 8),
        (false, 133 | 135 | 136) if is_discovery(bytes, packet, kind) => Control::Link,
        (false, 131 | 132 | 143) if hops(bytes) == 1 && packet.destination.is_multicast() => Control::Link,
        _ => Control::Other,
    }
}

/// Neighbour discovery as Linux writes it, and no longer: what else is in it goes where a router sends it.
#[inline(always)]
fn is_discovery<B: Bytes + ?Sized>(bytes: &B, packet: &Packet, kind: u8) -> bool {
    let Some([high, low]) = bytes.read::<2>(4) else { return false };
    let end = IPV6 + u16::from_be_bytes([high, low]) as usize;
    let at = packet.transport as usize;
    if hops(bytes) != 255 || end < at || end - at > DISCOVERY_MAX {
        return false;
    }
    // A neighbour is asked for itself.
    kind != SOLICITATION
        || packet.destination.is_multicast()
        || bytes.words::<4>(at + 8).is_some_and(|target| Address::from_words(target) == packet.destination)
}

#[inline(always)]
fn hops<B: Bytes + ?Sized>(bytes: &B) -> u8 {
    bytes.read::<1>(7).unwrap_or([0])[0]
}

/// Who says to be where, in an ARP message of `len` bytes; `None` if it is not one for IPv4 on Ethernet, or has
/// something behind it.
#[inline(always)]
pub fn arp_sender<B: Bytes + ?Sized>(bytes: &B, len: usize) -> Option<Address> {
    if len != ARP || bytes.read::<6>(0)? != [0, 1, 0x08, 0x00, 6, 4] {
        return None;
    }
    Some(Address::mapped(bytes.read::<4>(14)?))
}

/// A packet in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which packet.
    pub ident: u32,
    /// Whether it is the piece with the ports.
    pub is_first: bool,
    /// What is in pieces: a transport protocol or, in IPv6, what extension header comes behind the fragment header. All pieces of a
    /// packet say the same.
    pub protocol: u8,
}

/// Whether a packet, which was read, is a piece of one.
#[inline(always)]
pub fn fragment<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> Option<Fragment> {
    if packet.piece_at == 0 {
        return None;
    }
    let at = packet.piece_at as usize;
    if packet.destination.is_v4() {
        let [a, b, flags, low] = bytes.read::<4>(at)?;
        let is_first = u16::from_be_bytes([flags & 0x1f, low]) == 0;
        let ident = u32::from(u16::from_be_bytes([a, b]));
        return Some(Fragment { ident, is_first, protocol: packet.protocol });
    }
    let [protocol, _, high, low, a, b, c, d] = bytes.read::<8>(at)?;
    let is_first = u16::from_be_bytes([high, low]) & 0xfff8 == 0;
    Some(Fragment { ident: u32::from_be_bytes([a, b, c, d]), is_first, protocol })
}

/// A packet in a packet.
pub struct Quoted<'a, B: ?Sized> {
    /// The outer one.
    pub outer: &'a B,
    /// Where the inner one begins.
    pub at: usize,
}

impl<B: Bytes + ?Sized> Bytes for Quoted<'_, B> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.outer.read(self.at + offset)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.outer.words(self.at + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;

    fn v4(number: u8, ttl: u8, destination: [u8; 4], fragment: u16, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, ttl, number, 0, 0, 10, 0, 0, 1];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend(destination);
        packet.extend(body);
        packet
    }

    fn v6(next: u8, hops: u8, destination: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0u8; 40];
        (packet[0], packet[6], packet[7], packet[24]) = (0x60, next, hops, destination);
        packet.extend(body);
        packet
    }

    fn control_of(bytes: &[u8]) -> Control {
        control(bytes, &parse(bytes).unwrap())
    }

    #[test]
    fn control_messages_are_known() {
        let echo = [8, 0, 0, 0, 0x77, 0x01, 0, 0];
        assert_eq!(control_of(&v4(1, 64, [192, 0, 2, 1], 0, &echo)), Control::EchoRequest(0x7701));
        assert_eq!(control_of(&v6(58, 64, 0x20, &[129, 0, 0, 0, 0, 7])), Control::EchoReply(7));
        assert_eq!(control_of(&v4(1, 64, [192, 0, 2, 1], 0, &[3, 1, 0, 0, 0, 0])), Control::Error(28));
        assert_eq!(control_of(&v6(58, 255, 0xff, &[135, 0, 0, 0, 0, 0])), Control::Link);
        assert_eq!(control_of(&v6(58, 64, 0xff, &[135, 0, 0, 0, 0, 0])), Control::Other, "it came from afar");
        let discovery = |kind: u8, len: usize, target: u8| {
            let mut body = vec![0; len];
            (body[0], body[8]) = (kind, target);
            let mut packet = v6(58, 255, 0x20, &body);
            packet[5] = len as u8;
            packet
        };
        assert_eq!(control_of(&discovery(135, 32, 0x20)), Control::Link, "a neighbour is asked for itself");
        assert_eq!(control_of(&discovery(135, 32, 0x21)), Control::Other, "and for nobody else");
        assert_eq!(control_of(&discovery(136, 32, 0x21)), Control::Link);
        assert_eq!(control_of(&discovery(136, 56, 0x21)), Control::Other, "Linux writes no more than that");
        assert_eq!(control_of(&v6(58, 1, 0xff, &[143, 0, 0, 0, 0, 0])), Control::Link);
        assert_eq!(
            control_of(&v6(58, 255, 0xff, &[134, 0, 0, 0, 0, 0])),
            Control::Other,
            "pods are no routers"
        );
        assert_eq!(control_of(&v4(2, 1, [224, 0, 0, 22], 0, &[])), Control::Link);
        assert_eq!(control_of(&v4(2, 64, [224, 0, 0, 22], 0, &[])), Control::Other);
        assert_eq!(control_of(&v4(2, 1, [192, 0, 2, 1], 0, &[])), Control::Other);
        assert_eq!(control_of(&v4(1, 64, [192, 0, 2, 1], 0, &[8, 0])), Control::Other, "cut");
    }

    #[test]
    fn arp_says_who_is_where() {
        let mut message = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 7];
        message.extend([0; 10]);
        assert_eq!(arp_sender(message.as_slice(), 28), Some(Address::mapped([10, 0, 0, 7])));
        assert_eq!(arp_sender(message.as_slice(), 46), None, "something behind it");
        message[3] = 6;
        assert_eq!(arp_sender(message.as_slice(), 28), None);
    }

    #[test]
    fn fragments_are_told_apart() {
        let udp = [0x12, 0x34, 0, 53, 0, 20, 0, 0];
        let of = |bytes: &[u8]| {
            let mut packet = Packet::default();
            let _ = crate::packet::parse_into(bytes, &mut packet);
            fragment(bytes, &packet)
        };
        let whole = v4(17, 64, [192, 0, 2, 1], 0x4000, &udp);
        assert_eq!(of(&whole), None);
        let first = v4(17, 64, [192, 0, 2, 1], 0x2000, &udp);
        assert_eq!(of(&first), Some(Fragment { ident: 0x1234, is_first: true, protocol: 17 }));
        let last = v4(17, 64, [192, 0, 2, 1], 0x0003, &udp);
        assert_eq!(of(&last), Some(Fragment { ident: 0x1234, is_first: false, protocol: 17 }));
        let six = v6(44, 64, 0x20, &[17, 0, 0, 9, 0, 0, 0, 5, 1, 2, 3, 4]);
        assert_eq!(of(&six), Some(Fragment { ident: 5, is_first: false, protocol: 17 }));
        // As Linux writes options: those for every hop come before, those for the destination behind.
        let hops = [44, 0, 1, 4, 0, 0, 0, 0];
        let behind = [60, 0, 0, 1, 0, 0, 0, 6, 17, 0, 1, 4, 0, 0, 0, 0];
        let six = v6(0, 64, 0x20, &[hops.as_slice(), &behind, &udp].concat());
        assert_eq!(of(&six), Some(Fragment { ident: 6, is_first: true, protocol: 60 }));
        let six = v6(0, 64, 0x20, &[hops.as_slice(), &[60, 0, 0, 9, 0, 0, 0, 6]].concat());
        assert_eq!(of(&six), Some(Fragment { ident: 6, is_first: false, protocol: 60 }));
        assert_eq!(of(&v6(17, 64, 0x20, &udp)), None);
    }
}
