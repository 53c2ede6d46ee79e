//! Packets: the only module that reads them.

mod frame;

use core::hint::black_box;
use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::{bpf_loop, bpf_sk_fullsock, bpf_skb_load_bytes};
use aya_ebpf::programs::SkBuffContext;
use l7egg_ebpf_common::answer::{MESSAGE_MAX, Message};
use l7egg_ebpf_common::packet::{self, Bytes, Packet, TcpEnds};

pub use frame::{Frame, Parsed};

/// `LOOPBACK_IFINDEX` of include/net/flow.h: the same in every network namespace.
const LOOPBACK_IFINDEX: u32 = 1;
/// `ETH_P_IP` and `ETH_P_IPV6` of include/uapi/linux/if_ether.h, in network order.
const ETH_P_IP: u32 = 0x0800u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86ddu16.to_be() as u32;
/// Families of sockets (include/linux/socket.h).
pub const AF_INET: u32 = 2;
/// See there.
pub const AF_INET6: u32 = 10;
/// `SOCK_RAW` of include/linux/net.h.
const SOCK_RAW: u32 = 3;
/// Bytes copied at once.
const BLOCK: usize = 64;

/// include/uapi/linux/if_packet.h.
const PACKET_LOOPBACK: u32 = 5;

/// A packet that begins with its IP header, as cgroup_skb programs see it.
#[derive(Clone, Copy)]
pub struct Skb {
    skb: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub fn new(ctx: &SkBuffContext) -> Self {
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

    /// Whether it goes over, or came over, the loopback interface.
    #[inline(always)]
    pub fn is_loopback(&self) -> bool {
        // SAFETY: the kernel hands a valid context to the program; the verifier checks the offset.
        unsafe { (*self.skb).ifindex == LOOPBACK_IFINDEX }
    }

    /// Whether the pod sent it itself, though it arrives: over the loopback interface, or as the copy of what it sent to everybody or a
    /// group, which its kernel gives back by the interface that it goes out by (`dev_loopback_xmit`, net/core/dev.c). Nothing
    /// from a wire is of that type.
    #[inline(always)]
    pub fn is_of_pod_itself(&self) -> bool {
        // SAFETY: as above.
        self.is_loopback() || unsafe { (*self.skb).pkt_type == PACKET_LOOPBACK }
    }

    /// Index of the interface that it goes over or came over.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ifindex }
    }

    /// Reads who talks to whom; whether the packet could be read. Into a place, not by value: the stack has
    /// room for one packet.
    #[inline(always)]
    pub fn parse(&self, packet: &mut Packet) -> bool {
        parse_packet(*self, packet) == 1
    }

    /// The ends of a usual TCP packet, read where they are; nothing for any other packet.
    #[inline(always)]
    pub fn usual_tcp(&self) -> Option<TcpEnds> {
        usual_tcp(self.skb, 0)
    }

    /// The socket that sent it or will read it, if it is a full one (not a request or time-wait socket) and
    /// the packet can only be its own: a raw or packet socket sends whatever it likes, so nothing may be concluded from
    /// it or remembered in it.
    #[inline(always)]
    pub fn socket(&self) -> Option<*mut bpf_sock> {
        socket(self.skb)
    }

    /// The socket, of whatever kind: only to look into its storage.
    #[inline(always)]
    pub fn any_socket(&self) -> Option<*mut bpf_sock> {
        // SAFETY: as above.
        let socket = unsafe { (*self.skb).__bindgen_anon_2.sk };
        if socket.is_null() { None } else { Some(socket) }
    }

    /// Whether it is several datagrams or segments, which the interface takes apart.
    #[inline(always)]
    pub fn is_several(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.skb).gso_size != 0 }
    }

    /// Bytes from the IP header to the end.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).len }
    }

    /// Copies `len` bytes from `offset` to the beginning of a message. `len` is at most [`MESSAGE_MAX`].
    #[inline(always)]
    pub fn copy(&self, offset: u32, len: u32, message: &mut Message) -> bool {
        copy_message(*self, offset, len, message) == 1
    }

    /// Copies `len` bytes from `offset` to the place `place` in a buffer of `MAX` bytes, a power of two, and a block more.
    /// Both together are at most `MAX`; what would be behind that is lost at its beginning.
    ///
    /// The helper wants a length that the verifier can bound, and different kernels can bound different
    /// things; so every length here is a constant: blocks, then the rest by powers of two.
    #[inline(always)]
    pub fn copy_to<const MAX: usize>(&self, offset: u32, len: u32, to: *mut u8, place: u32) -> bool {
        let mut copy = Copy { skb: self.skb, to, offset, len, place };
        // SAFETY: the callback has the type that the kernel calls, and `copy` outlives the loop.
        unsafe {
            bpf_loop(
                (MAX / BLOCK) as u32,
                copy_block::<MAX> as *const () as *mut _,
                (&raw mut copy).cast(),
                0,
            )
        };
        let mut done = len & !(BLOCK as u32 - 1);
        let rest = len as usize & (BLOCK - 1);
        macro_rules! part {
            ($size:literal) => {
                if rest & $size != 0 {
                    let at = black_box(place.wrapping_add(done)) as usize & (MAX - 1);
                    // SAFETY: `at` is below MAX, and the buffer is a block longer than that.
                    let result = unsafe {
                        bpf_skb_load_bytes(self.skb.cast(), offset + done, to.add(at).cast(), $size)
                    };
                    if result != 0 {
                        return false;
                    }
                    done += $size;
                }
            };
        }
        part!(32);
        part!(16);
        part!(8);
        part!(4);
        part!(2);
        part!(1);
        let _ = done;
        true
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // Not cleared before: that is a loop over bytes here.
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: `bytes` is N bytes long; the helper fails where the packet ends before, and else writes them all.
        unsafe {
            let result =
                bpf_skb_load_bytes(self.skb.cast(), offset as u32, bytes.as_mut_ptr().cast(), N as u32);
            if result == 0 { Some(bytes.assume_init()) } else { None }
        }
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: as above, for four bytes each.
        unsafe {
            let result =
                bpf_skb_load_bytes(self.skb.cast(), offset as u32, words.as_mut_ptr().cast(), N as u32 * 4);
            if result == 0 { Some(words.assume_init()) } else { None }
        }
    }
}

/// A packet of which nothing is known yet. Word by word: the compiler would make a loop over bytes of it.
#[inline(always)]
pub fn nothing(place: &mut MaybeUninit<Packet>) -> &mut Packet {
    const { assert!(size_of::<Packet>() == 6 * 8) };
    let words: *mut u64 = place.as_mut_ptr().cast();
    // SAFETY: as many words as the packet has, which may all be zero.
    unsafe {
        words.write_volatile(0);
        words.add(1).write_volatile(0);
        words.add(2).write_volatile(0);
        words.add(3).write_volatile(0);
        words.add(4).write_volatile(0);
        words.add(5).write_volatile(0);
        place.assume_init_mut()
    }
}

crate::global! {
    fn parse_packet(skb: Skb, packet: &mut Packet) -> i32 {
        i32::from(parse_usual(skb.skb, 0, packet) || packet::parse_into(&skb, packet).is_ok())
    }
}

crate::global! {
    fn copy_message(skb: Skb, offset: u32, len: u32, message: &mut Message) -> i32 {
        message.len = len;
        message.cut = 0;
        i32::from(skb.copy_to::<MESSAGE_MAX>(offset, len, message.bytes.as_mut_ptr(), 0))
    }
}

#[inline(always)]
fn usual_tcp(skb: *mut __sk_buff, at: usize) -> Option<TcpEnds> {
    // SAFETY: the kernel hands a valid context to the program; the verifier checks the offset.
    match unsafe { (*skb).protocol } {
        ETH_P_IP => packet::usual_v4(first(skb, at)?),
        ETH_P_IPV6 => packet::usual_v6(first(skb, at)?),
        _ => None,
    }
}

/// Reads a usual packet where it is; false for any other.
#[inline(always)]
fn parse_usual(skb: *mut __sk_buff, at: usize, packet: &mut Packet) -> bool {
    // SAFETY: as above.
    match unsafe { (*skb).protocol } {
        ETH_P_IP => first(skb, at).is_some_and(|first| packet::parse_usual_v4(first, packet)),
        ETH_P_IPV6 => first(skb, at).is_some_and(|first| packet::parse_usual_v6(first, packet)),
        _ => false,
    }
}

/// The first words from `at` on, unless fewer are in one piece.
#[inline(always)]
fn first<'a, const N: usize>(skb: *mut __sk_buff, at: usize) -> Option<&'a [u32; N]> {
    // SAFETY: the verifier knows both fields and the comparison, and that the packet does not change meanwhile. An IP
    // header begins at a multiple of four (`NET_IP_ALIGN`), or the machine does not mind.
    unsafe {
        let (begin, end) = ((*skb).data as usize + at, (*skb).data_end as usize);
        if begin + N * 4 > end { None } else { Some(&*(begin as *const [u32; N])) }
    }
}

#[inline(always)]
fn socket(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the verifier checks that the pointer is tested before the helper uses it.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let full = bpf_sk_fullsock(sk);
        if full.is_null() || (*full).type_ == SOCK_RAW || !matches!((*full).family, AF_INET | AF_INET6) {
            None
        } else {
            Some(full)
        }
    }
}

struct Copy {
    skb: *mut __sk_buff,
    to: *mut u8,
    offset: u32,
    len: u32,
    place: u32,
}

extern "C" fn copy_block<const MAX: usize>(index: u32, copy: *mut Copy) -> i64 {
    // SAFETY: `copy` is the one of the call above; `at` is below MAX, and the buffer is a block longer.
    unsafe {
        let done = index * BLOCK as u32;
        if done + BLOCK as u32 > (*copy).len {
            return 1;
        }
        let at = black_box((*copy).place.wrapping_add(done)) as usize & (MAX - 1);
        let to = (*copy).to.add(at);
        bpf_skb_load_bytes((*copy).skb.cast(), (*copy).offset + done, to.cast(), BLOCK as u32);
    }
    0
}
