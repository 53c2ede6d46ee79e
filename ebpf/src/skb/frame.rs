//! Packets on an interface, and turning them round.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::{
    bpf_l3_csum_replace, bpf_redirect_peer, bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_pull_data,
    bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use l7egg_ebpf_common::link::{ETHERNET, Quoted, ethertype};
use l7egg_ebpf_common::packet::{self, Bytes, Malformed, Packet, TcpEnds};

use super::{AF_INET, AF_INET6, Skb, parse_usual, socket, usual_tcp};

/// Type of a frame that is for this host: include/uapi/linux/if_packet.h.
const PACKET_HOST: u32 = 0;

/// A packet on an interface, as sched_cls programs see it: with its Ethernet header, which is read over.
#[derive(Clone, Copy)]
pub struct Frame {
    skb: *mut __sk_buff,
}

impl Frame {
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.as_ptr().cast() }
    }

    /// From the context, as a global function gets it.
    #[inline(always)]
    pub fn from_raw(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    /// The context for helpers.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut __sk_buff {
        self.skb
    }

    /// Index of the interface.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: the kernel hands a valid context to the program; the verifier checks the offset.
        unsafe { (*self.skb).ifindex }
    }

    /// Ethertype, or 0 for a frame with a VLAN tag.
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        // SAFETY: as above.
        unsafe { if (*self.skb).vlan_present == 0 { u16::from_be((*self.skb).protocol as u16) } else { 0 } }
    }

    /// Bytes behind the Ethernet header.
    #[inline(always)]
    pub fn len(&self) -> usize {
        // SAFETY: as above.
        (unsafe { (*self.skb).len } as usize).wrapping_sub(ETHERNET)
    }

    /// Whether it is IPv4.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        self.ethertype() == ethertype::IPV4
    }

    /// Offset in the frame of what is at an offset in its packet.
    #[inline(always)]
    pub fn offset(&self, in_packet: u16) -> u32 {
        ETHERNET as u32 + u32::from(in_packet)
    }

    /// Turns the frame round: `len` bytes from the transport header at `transport` on, to where it comes from. Whether it
    /// could be; if not, the frame is of no use any more.
    #[inline(always)]
    pub fn turn(&self, transport: u16, len: u32) -> bool {
        turn_frame(*self, u32::from(transport), len) == 1
    }

    /// Has the first `len` bytes in the frame's own memory, not in pages that it may share with a process (splice(2)); whether
    /// there are as many.
    #[inline(always)]
    pub fn own(&self, len: u32) -> bool {
        // SAFETY: the helper checks its arguments against the packet.
        unsafe { bpf_skb_pull_data(self.skb, len) == 0 }
    }

    /// Makes the frame so long that `len` bytes are behind an offset of the packet; whether it could be.
    #[inline(always)]
    pub fn set_len(&self, at: u16, len: u32) -> bool {
        // SAFETY: the helper checks its arguments against the packet.
        unsafe { bpf_skb_change_tail(self.skb, self.offset(at) + len, 0) == 0 }
    }

    /// Writes bytes at an offset of the packet; whether they fit.
    #[inline(always)]
    pub fn write<const N: usize>(&self, at: u16, bytes: &[u8; N]) -> bool {
        self.store(self.offset(at), bytes)
    }

    /// Gives the frame to the other end of the wire that it came in by, past what others let out to the pod there (a firewall that
    /// has not seen the query takes its answer for a packet of its own); what the program has to return then.
    #[inline(always)]
    pub fn send_back(&self) -> i32 {
        // SAFETY: the helpers check their arguments.
        unsafe {
            // It was addressed to whoever is behind the node, where the node is a bridge.
            bpf_skb_change_type(self.skb, PACKET_HOST);
            bpf_redirect_peer(self.interface(), 0) as i32
        }
    }

    #[inline(always)]
    fn store<const N: usize>(&self, at: u32, bytes: &[u8; N]) -> bool {
        // SAFETY: `bytes` is N bytes long; the helper fails where the packet ends before.
        unsafe { bpf_skb_store_bytes(self.skb.cast(), at, bytes.as_ptr().cast(), N as u32, 0) == 0 }
    }

    /// Lets two neighbouring parts change places.
    #[inline(always)]
    fn swap<const N: usize>(&self, at: u32) -> bool {
        let skb = Skb { skb: self.skb };
        let (Some(first), Some(second)) = (skb.read::<N>(at as usize), skb.read::<N>(at as usize + N)) else {
            return false;
        };
        self.store(at, &second) && self.store(at + N as u32, &first)
    }

    /// For what asks for its socket only.
    #[inline(always)]
    pub fn as_skb(&self) -> Skb {
        Skb { skb: self.skb }
    }

    /// As [`Skb::usual_tcp`].
    #[inline(always)]
    pub fn usual_tcp(&self) -> Option<TcpEnds> {
        usual_tcp(self.skb, ETHERNET)
    }

    /// As [`Skb::socket`]: a socket outlives the hop over a veth pair.
    #[inline(always)]
    pub fn socket(&self) -> Option<*mut bpf_sock> {
        socket(self.skb)
    }

    /// As [`Skb::any_socket`].
    #[inline(always)]
    pub fn any_socket(&self) -> Option<*mut bpf_sock> {
        self.as_skb().any_socket()
    }

    /// Whether a socket wrote it that writes frames, and not packets: one of AF_PACKET or AF_XDP.
    #[inline(always)]
    pub fn is_of_link_socket(&self) -> bool {
        // SAFETY: tested before it is used.
        unsafe {
            let sk = (*self.skb).__bindgen_anon_2.sk;
            !sk.is_null() && !matches!((*sk).family, AF_INET | AF_INET6)
        }
    }

    /// Reads who talks to whom, as far as a packet of the frame's ethertype says.
    #[inline(always)]
    pub fn parse(&self, packet: &mut Packet) -> Parsed {
        parsed(parse_frame(*self, packet))
    }

    /// Reads the packet that an ICMP error quotes from `at` on.
    #[inline(always)]
    pub fn parse_quoted(&self, at: usize, packet: &mut Packet) -> Parsed {
        parsed(parse_quoted(*self, at as u32, packet))
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        Skb { skb: self.skb }.read(ETHERNET + offset)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        Skb { skb: self.skb }.words(ETHERNET + offset)
    }
}

/// What became of reading a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// All of it was read.
    Whole,
    /// It is a later fragment, without ports.
    Fragment,
    /// It cannot be read.
    Malformed,
}

#[inline(always)]
fn parsed(result: i32) -> Parsed {
    match result {
        1 => Parsed::Whole,
        2 => Parsed::Fragment,
        _ => Parsed::Malformed,
    }
}

#[inline(always)]
fn result(parsed: Result<(), Malformed>) -> i32 {
    match parsed {
        Ok(()) => 1,
        Err(Malformed::Fragment) => 2,
        Err(_) => 0,
    }
}

crate::global! {
    fn parse_frame(frame: Frame, packet: &mut Packet) -> i32 {
        let version = match frame.ethertype() {
            ethertype::IPV4 => 4,
            ethertype::IPV6 => 6,
            _ => return 0,
        };
        if parse_usual(frame.skb, ETHERNET, packet) {
            return 1;
        }
        match frame.read::<1>(0) {
            Some([first]) if first >> 4 == version => result(packet::parse_into(&frame, packet)),
            _ => 0,
        }
    }
}

crate::global! {
    fn turn_frame(frame: Frame, transport: u32, len: u32) -> i32 {
        let ip = ETHERNET as u32;
        // SAFETY: the helpers check their arguments against the packet.
        unsafe {
            if bpf_skb_change_tail(frame.skb, ip + transport + len, 0) != 0 || !frame.swap::<6>(0) {
                return 0;
            }
            if frame.is_v4() {
                let Some(old) = frame.read::<2>(2) else { return 0 };
                let new = ((transport + len) as u16).to_be_bytes();
                let (from, to) = (u16::from_ne_bytes(old), u16::from_ne_bytes(new));
                // Addresses that change places change no sum.
                let done = bpf_l3_csum_replace(frame.skb, ip + 10, from.into(), to.into(), 2) == 0
                    && frame.store(ip + 2, &new)
                    && frame.swap::<4>(ip + 12);
                return i32::from(done);
            }
            let new = ((transport + len) as u16).wrapping_sub(40).to_be_bytes();
            i32::from(frame.store(ip + 4, &new) && frame.swap::<16>(ip + 8))
        }
    }
}

crate::global! {
    fn parse_quoted(frame: Frame, at: u32, packet: &mut Packet) -> i32 {
        result(packet::parse_into(&Quoted { outer: &frame, at: at as usize }, packet))
    }
}
