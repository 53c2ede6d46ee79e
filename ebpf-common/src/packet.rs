//! Reading packets, from the IP header on: who talks to whom, over what. Every packet is read to its
//! transport header or refused; there is no "unknown, so let it pass".

mod usual;

use core::hint::black_box;

pub use usual::{TcpEnds, USUAL_V4, USUAL_V6, parse_usual_v4, parse_usual_v6, usual_v4, usual_v6};

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
    /// For a piece of a packet in pieces, where that is said: IPv6's fragment header, or the second word of IPv4's. Else 0.
    pub piece_at: u32,
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
    packet.piece_at = u32::from(fragment & 0x3fff != 0) * 4;
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
                packet.piece_at = offset as u32;
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
mod tests;
