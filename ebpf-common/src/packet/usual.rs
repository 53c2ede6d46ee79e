//! Packets as most are, read where they are: TCP or UDP right behind a plain IP header, in one piece.

use super::Packet;
use crate::abi::{Address, protocol};

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
