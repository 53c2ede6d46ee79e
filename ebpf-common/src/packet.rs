//! Reading packets, from the IP header on: who talks to whom, over what. Every packet is read to its
//! transport header or refused; there is no "unknown, so let it pass".

use core::hint::black_box;

use crate::abi::{Address, protocol};

/// IPv6 extension headers read before a packet is refused.
pub const EXTENSIONS_MAX: usize = 8;
/// Words of IPv4 options at most: the header's length counts to 60 bytes (RFC 791 §3.1).
const OPTION_WORDS: usize = 10;
/// IPv4 options that are let through: no operation and the list's end, which are one byte, and the router alert
/// (RFC 2113), with which memberships of groups are told.
const OPTION_NONE: u8 = 1;
const OPTION_ROUTER_ALERT: u8 = 148;

/// Something that has bytes at offsets: a packet.
pub trait Bytes {
    /// The `N` bytes at `offset`, or `None` if the packet ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// The same for `N` words of four bytes, as they are in memory.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = u32::from_ne_bytes(self.read(offset + index * 4)?);
        }
        Some(words)
    }
}

/// The parts of a packet that a verdict needs.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port; 0 for protocols without ports.
    pub source_port: u16,
    /// Destination port; 0 for protocols without ports.
    pub destination_port: u16,
    /// IP protocol, ICMPv6 as [`protocol::ICMP`].
    pub protocol: u8,
    /// TCP flags (RFC 9293 §3.1), 0 otherwise.
    pub tcp_flags: u8,
    /// Offset of the transport header.
    pub transport: u16,
    /// Offset of what follows the TCP or UDP header; 0 otherwise.
    pub payload: u16,
    /// Bytes of UDP payload, as its header says; 0 otherwise.
    pub payload_len: u16,
    /// 1 for a piece of a packet in pieces, else 0.
    pub is_piece: u32,
}

/// TCP flag FIN.
pub const TCP_FIN: u8 = 0x01;
/// TCP flag SYN.
pub const TCP_SYN: u8 = 0x02;
/// TCP flag RST.
pub const TCP_RST: u8 = 0x04;
/// TCP flag PSH.
pub const TCP_PSH: u8 = 0x08;
/// TCP flag ACK.
pub const TCP_ACK: u8 = 0x10;

/// Why a packet could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends within a header.
    Short,
    /// Neither IPv4 nor IPv6, or an IPv4 header shorter than 20 bytes.
    Version,
    /// A later fragment: it has no ports. Sockets' packets are fragmented after the programs on cgroups ran and put
    /// together before, so only raw sockets send these. Addresses and protocol have been read.
    Fragment,
    /// More IPv6 extension headers than [`EXTENSIONS_MAX`].
    Extensions,
    /// IPv4 options, which have no place in a pod's packets: by a source route (RFC 791 §3.1) the destination would
    /// be another one, and most networks drop the others too (RFC 7126 §4).
    Options,
    /// An IPv6 routing header, by which the destination would be another one (RFC 5095).
    Routing,
    /// IPv6 with an IPv4-mapped address: no such packet may be on a network (RFC 4038 §4.2), and it would be judged
    /// as IPv4.
    Mapped,
}

/// Where a TCP packet comes from and goes to, as far as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpEnds {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Destination port.
    pub destination_port: u16,
    /// Source port.
    pub source_port: u16,
    /// TCP flags.
    pub flags: u8,
}

/// Words of a packet, in network order as they are, up to the flags of TCP: behind an IPv4 header without options or
/// right behind an IPv6 header. From so many on a packet of these can be parsed.
pub const USUAL_V4: usize = (20 + 16) / 4;
/// See there.
pub const USUAL_V6: usize = (40 + 16) / 4;

/// The ends of a TCP packet without options, extension headers or fragments, which is what most are; nothing for any
/// other.
#[inline(always)]
pub fn usual_v4(first: &[u32; USUAL_V4]) -> Option<TcpEnds> {
    if is_usual_v4(first) && first[2] & NUMBER_V4 == word([0, protocol::TCP, 0, 0]) {
        Some(ends(source_v4(first), destination_v4(first), first[5], first[8]))
    } else {
        None
    }
}

/// The same over IPv6.
#[inline(always)]
pub fn usual_v6(first: &[u32; USUAL_V6]) -> Option<TcpEnds> {
    if is_v6(first) && first[1] & NUMBER_V6 == word([0, 0, protocol::TCP, 0]) {
        Some(ends(source_v6(first), destination_v6(first), first[10], first[13]))
    } else {
        None
    }
}

/// Reads a usual packet, of TCP or UDP, as [`parse`] does; false for any other, of which nothing is read.
#[inline(always)]
pub fn parse_usual_v4(first: &[u32; USUAL_V4], packet: &mut Packet) -> bool {
    let [_, number, ..] = first[2].to_ne_bytes();
    if !is_usual_v4(first) || !(number == protocol::TCP || number == protocol::UDP) {
        return false;
    }
    packet.source = source_v4(first);
    packet.destination = destination_v4(first);
    usual_transport(number, 20, first[5], first[6], first[8], packet);
    true
}

/// The same over IPv6.
#[inline(always)]
pub fn parse_usual_v6(first: &[u32; USUAL_V6], packet: &mut Packet) -> bool {
    let [_, _, number, _] = first[1].to_ne_bytes();
    let (source, destination) = (source_v6(first), destination_v6(first));
    let is_usual = is_v6(first)
        && (number == protocol::TCP || number == protocol::UDP)
        && !(source.is_v4() || destination.is_v4());
    if !is_usual {
        return false;
    }
    packet.source = source;
    packet.destination = destination;
    usual_transport(number, 40, first[10], first[11], first[13], packet);
    true
}

const NUMBER_V4: u32 = word([0, 0xff, 0, 0]);
const NUMBER_V6: u32 = word([0, 0, 0xff, 0]);

/// A header of 20 bytes, and the packet is in one piece.
#[inline(always)]
fn is_usual_v4(first: &[u32; USUAL_V4]) -> bool {
    first[0] & word([0xff, 0, 0, 0]) == word([0x45, 0, 0, 0]) && first[1] & word([0, 0, 0x3f, 0xff]) == 0
}

#[inline(always)]
fn is_v6(first: &[u32; USUAL_V6]) -> bool {
    first[0] & word([0xf0, 0, 0, 0]) == word([0x60, 0, 0, 0])
}

#[inline(always)]
fn source_v4(first: &[u32; USUAL_V4]) -> Address {
    Address::mapped(first[3].to_ne_bytes())
}

#[inline(always)]
fn destination_v4(first: &[u32; USUAL_V4]) -> Address {
    Address::mapped(first[4].to_ne_bytes())
}

#[inline(always)]
fn source_v6(first: &[u32; USUAL_V6]) -> Address {
    Address::from_words([first[2], first[3], first[4], first[5]])
}

#[inline(always)]
fn destination_v6(first: &[u32; USUAL_V6]) -> Address {
    Address::from_words([first[6], first[7], first[8], first[9]])
}

#[inline(always)]
fn ends(source: Address, destination: Address, ports: u32, offset_and_flags: u32) -> TcpEnds {
    let ports = u32::from_be(ports);
    let flags = offset_and_flags.to_ne_bytes()[1];
    TcpEnds { source, destination, destination_port: ports as u16, source_port: (ports >> 16) as u16, flags }
}

/// Of UDP `second` has the length, of TCP `fourth` the data offset and the flags.
#[inline(always)]
fn usual_transport(number: u8, offset: u16, ports: u32, second: u32, fourth: u32, packet: &mut Packet) {
    let ports = u32::from_be(ports);
    packet.source_port = (ports >> 16) as u16;
    packet.destination_port = ports as u16;
    packet.protocol = number;
    packet.transport = offset;
    if number == protocol::TCP {
        let [data_offset, flags, ..] = fourth.to_ne_bytes();
        packet.tcp_flags = flags;
        packet.payload = offset + u16::from(data_offset >> 4) * 4;
    } else {
        packet.payload = offset + 8;
        packet.payload_len = ((u32::from_be(second) >> 16) as u16).saturating_sub(8);
    }
}

#[inline(always)]
const fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

/// Reads a packet that begins with its IP header.
pub fn parse<B: Bytes + ?Sized>(bytes: &B) -> Result<Packet, Malformed> {
    let mut packet = Packet::default();
    parse_into(bytes, &mut packet).map(|()| packet)
}

/// The same into a place that is there already: the kernel's stack has room for one packet only.
#[inline(always)]
pub fn parse_into<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Malformed> {
    let [first] = bytes.read::<1>(0).ok_or(Malformed::Short)?;
    match first >> 4 {
        4 => parse_v4(bytes, first, packet),
        6 => parse_v6(bytes, packet),
        _ => Err(Malformed::Version),
    }
}

#[inline(always)]
fn parse_v4<B: Bytes + ?Sized>(bytes: &B, first: u8, packet: &mut Packet) -> Result<(), Malformed> {
    // From the fragment offset on, and both addresses.
    let header = bytes.read::<4>(6).ok_or(Malformed::Short)?;
    let [source, destination] = bytes.words::<2>(12).ok_or(Malformed::Short)?;
    let length = usize::from(first & 15) * 4;
    if length < 20 {
        return Err(Malformed::Version);
    }
    packet.source = Address::mapped(source.to_ne_bytes());
    packet.destination = Address::mapped(destination.to_ne_bytes());
    // Hidden, so that what the verifier finds out about the one length does not multiply what it follows after.
    if length > 20 && options(bytes, black_box(length)) == 0 {
        return Err(Malformed::Options);
    }
    let fragment = u16::from_be_bytes([header[0], header[1]]);
    packet.is_piece = u32::from(fragment & 0x3fff != 0);
    if fragment & 0x1fff != 0 {
        packet.protocol = normal(header[3]);
        return Err(Malformed::Fragment);
    }
    transport(bytes, length, header[3], packet)
}

/// 1 if the options before `end` may be there. Word by word: a walk from one to the next has too many ways for the
/// verifier, which shall also see the end of this function as one.
#[inline(never)]
fn options<B: Bytes + ?Sized>(bytes: &B, end: usize) -> i32 {
    for index in 0..OPTION_WORDS {
        let offset = 20 + index * 4;
        if offset >= end {
            break;
        }
        let Some(word) = bytes.read::<4>(offset) else { return 0 };
        let is_alert = word[0] == OPTION_ROUTER_ALERT && word[1] == 4;
        let is_empty = word[0] | word[1] | word[2] | word[3] <= OPTION_NONE;
        if !is_alert && !is_empty {
            return 0;
        }
    }
    1
}

#[inline(always)]
fn parse_v6<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Malformed> {
    let [mut next] = bytes.read::<1>(6).ok_or(Malformed::Short)?;
    packet.source = Address::from_words(bytes.words(8).ok_or(Malformed::Short)?);
    packet.destination = Address::from_words(bytes.words(24).ok_or(Malformed::Short)?);
    if packet.source.is_v4() || packet.destination.is_v4() {
        return Err(Malformed::Mapped);
    }
    let mut offset = 40usize;
    // RFC 8200 §4.1. A bound on the headers rather than on their length, so that the loop ends.
    for _ in 0..EXTENSIONS_MAX {
        match next {
            // Hop-by-hop and destination options.
            0 | 60 => {
                let [following, length] = bytes.read::<2>(offset).ok_or(Malformed::Short)?;
                next = following;
                offset += (usize::from(length) + 1) * 8;
            }
            // Authentication header, RFC 4302 §2.2.
            51 => {
                let [following, length] = bytes.read::<2>(offset).ok_or(Malformed::Short)?;
                next = following;
                offset += (usize::from(length) + 2) * 4;
            }
            44 => {
                let [following, _, high, low] = bytes.read::<4>(offset).ok_or(Malformed::Short)?;
                packet.is_piece = 1;
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    packet.protocol = normal(following);
                    return Err(Malformed::Fragment);
                }
                next = following;
                offset += 8;
            }
            43 => return Err(Malformed::Routing),
            _ => return transport(bytes, offset, next, packet),
        }
    }
    Err(Malformed::Extensions)
}

/// ICMPv6 is ICMP.
#[inline(always)]
fn normal(number: u8) -> u8 {
    if number == protocol::ICMPV6 { protocol::ICMP } else { number }
}

#[inline(always)]
fn transport<B: Bytes + ?Sized>(
    bytes: &B,
    offset: usize,
    number: u8,
    packet: &mut Packet,
) -> Result<(), Malformed> {
    packet.protocol = normal(number);
    packet.transport = offset as u16;
    if !matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP) {
        return Ok(());
    }
    // All three begin with the ports.
    let ports = bytes.read::<4>(offset).ok_or(Malformed::Short)?;
    packet.source_port = u16::from_be_bytes([ports[0], ports[1]]);
    packet.destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    if number == protocol::TCP {
        let [data_offset, flags] = bytes.read::<2>(offset + 12).ok_or(Malformed::Short)?;
        packet.tcp_flags = flags;
        packet.payload = (offset + usize::from(data_offset >> 4) * 4) as u16;
    } else if number == protocol::UDP {
        let length = bytes.read::<2>(offset + 4).ok_or(Malformed::Short)?;
        packet.payload = (offset + 8) as u16;
        packet.payload_len = u16::from_be_bytes(length).saturating_sub(8);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: u8, options: usize, fragment: u16, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0u8; 20 + options];
        packet[0] = 0x40 | ((20 + options) / 4) as u8;
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = number;
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet[16..20].copy_from_slice(&[192, 0, 2, 7]);
        packet.extend(rest);
        packet
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0u8; 40];
        packet[0] = 0x60;
        packet[6] = next;
        packet[39] = 9;
        packet.extend(rest);
        packet
    }

    const UDP: [u8; 8] = [0x12, 0x34, 0, 53, 0, 20, 0, 0];

    #[test]
    fn udp_over_v4_with_options() {
        let packet = parse(v4(17, 8, 0, &UDP).as_slice()).unwrap();
        assert_eq!(packet.destination, Address::mapped([192, 0, 2, 7]));
        assert_eq!((packet.source_port, packet.destination_port), (0x1234, 53));
        assert_eq!((packet.payload, packet.payload_len), (36, 12));
    }

    fn with_options(options: &[u8]) -> Result<Packet, Malformed> {
        let mut packet = v4(17, options.len(), 0, &UDP);
        packet[20..20 + options.len()].copy_from_slice(options);
        parse(packet.as_slice())
    }

    #[test]
    fn options_are_refused_but_for_the_router_alert() {
        assert_eq!(
            with_options(&[131, 7, 4, 192, 0, 2, 1, 0]),
            Err(Malformed::Options),
            "loose source route"
        );
        assert_eq!(
            with_options(&[137, 7, 4, 192, 0, 2, 1, 0]),
            Err(Malformed::Options),
            "strict source route"
        );
        assert_eq!(with_options(&[1, 1, 1, 131, 3, 4, 0, 0]), Err(Malformed::Options));
        assert_eq!(with_options(&[0x94, 4, 0, 0, 131, 3, 4, 0]), Err(Malformed::Options));
        let mut last = [1u8; 40];
        last[37] = 131;
        assert_eq!(with_options(&last), Err(Malformed::Options));
        assert_eq!(with_options(&[0x44, 4, 5, 0]), Err(Malformed::Options), "timestamp");
        assert_eq!(with_options(&[0x94, 8, 0, 0, 1, 1, 1, 1]), Err(Malformed::Options), "a long alert");
        assert!(with_options(&[0x94, 4, 0, 0]).is_ok());
        assert!(with_options(&[1; 40]).is_ok());
        assert!(with_options(&[1, 1, 0, 0]).is_ok());
    }

    #[test]
    fn mapped_addresses_are_no_ipv6() {
        let mut packet = v6(17, &UDP);
        packet[24..40].copy_from_slice(&Address::mapped([192, 0, 2, 7]).bytes());
        assert_eq!(parse(packet.as_slice()), Err(Malformed::Mapped));
        let mut packet = v6(17, &UDP);
        packet[8..24].copy_from_slice(&Address::mapped([192, 0, 2, 7]).bytes());
        assert_eq!(parse(packet.as_slice()), Err(Malformed::Mapped));
    }

    #[test]
    fn only_the_first_fragment_has_ports() {
        assert!(parse(v4(17, 0, 0x2000, &UDP).as_slice()).is_ok());
        assert_eq!(parse(v4(17, 0, 0x2001, &UDP).as_slice()), Err(Malformed::Fragment));
        let fragment = [[17, 0, 0, 8].as_slice(), &[0; 4], &UDP].concat();
        assert_eq!(parse(v6(44, &fragment).as_slice()), Err(Malformed::Fragment));
        let first = [[17, 0, 0, 1].as_slice(), &[0; 4], &UDP].concat();
        assert_eq!(parse(v6(44, &first).as_slice()).unwrap().destination_port, 53);
    }

    #[test]
    fn extension_headers_are_walked_and_bounded() {
        let mut rest = Vec::new();
        for _ in 0..3 {
            rest.extend([60, 0, 0, 0, 0, 0, 0, 0]);
        }
        rest.extend([17, 1]);
        rest.extend([0; 14]);
        rest.extend(UDP);
        assert_eq!(parse(v6(0, &rest).as_slice()).unwrap().destination_port, 53);
        let endless = [60u8, 0, 0, 0, 0, 0, 0, 0].repeat(20);
        assert_eq!(parse(v6(60, &endless).as_slice()), Err(Malformed::Extensions));
        assert_eq!(parse(v6(43, &endless).as_slice()), Err(Malformed::Routing));
    }

    #[test]
    fn icmpv6_is_icmp_and_unknown_protocols_have_no_ports() {
        assert_eq!(parse(v6(58, &[128, 0]).as_slice()).unwrap().protocol, protocol::ICMP);
        assert_eq!(parse(v4(47, 0, 0, &[]).as_slice()).unwrap().destination_port, 0);
    }

    #[test]
    fn short_and_strange_packets_are_refused() {
        assert_eq!(parse([].as_slice()), Err(Malformed::Short));
        assert_eq!(parse([0x50; 60].as_slice()), Err(Malformed::Version));
        assert_eq!(parse([0x44; 60].as_slice()), Err(Malformed::Version));
        assert_eq!(parse(v4(6, 0, 0, &[0; 13]).as_slice()), Err(Malformed::Short));
        assert_eq!(parse(v6(60, &[]).as_slice()), Err(Malformed::Short));
    }
}
