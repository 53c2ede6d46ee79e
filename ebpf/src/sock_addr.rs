//! What a program hands to connect(2) or sendmsg(2): the only module that reads it.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::programs::SockAddrContext;
use l7egg_ebpf_common::abi::Address;
use l7egg_ebpf_common::packet::Packet;

/// A destination as a program asked for it.
pub struct SockAddr<'a> {
    ctx: &'a SockAddrContext,
    /// The address.
    pub address: Address,
}

impl<'a> SockAddr<'a> {
    /// From a hook for IPv4, which sees what IPv6 sockets do with mapped addresses as well.
    #[inline(always)]
    pub fn v4(ctx: &'a SockAddrContext) -> Self {
        // SAFETY: the context is valid; the verifier checks the offset.
        let address = unsafe { (*ctx.sock_addr).user_ip4 }.to_ne_bytes();
        Self { ctx, address: Address::mapped(address) }
    }

    /// From a hook for IPv6.
    #[inline(always)]
    pub fn v6(ctx: &'a SockAddrContext) -> Self {
        let addr = ctx.sock_addr;
        // SAFETY: as above. Word by word, as the verifier wants this field.
        let address = unsafe {
            [
                core::ptr::read_volatile(&raw const (*addr).user_ip6[0]),
                core::ptr::read_volatile(&raw const (*addr).user_ip6[1]),
                core::ptr::read_volatile(&raw const (*addr).user_ip6[2]),
                core::ptr::read_volatile(&raw const (*addr).user_ip6[3]),
            ]
        };
        Self { ctx, address: Address::from_words(address) }
    }

    /// The packet that will come of it, as far as flows and verdicts ask.
    #[inline(always)]
    pub fn packet(&self) -> Packet {
        Packet {
            destination: self.address,
            destination_port: self.port(),
            source_port: self.local_port(),
            protocol: self.protocol() as u8,
            ..Packet::default()
        }
    }

    /// The address that a datagram will be sent from, in a sendmsg hook for IPv4; unspecified if the route
    /// decides.
    #[inline(always)]
    pub fn source_v4(&self) -> Address {
        // SAFETY: as above.
        Address::mapped(unsafe { (*self.ctx.sock_addr).msg_src_ip4 }.to_ne_bytes())
    }

    /// The same in a sendmsg hook for IPv6.
    #[inline(always)]
    pub fn source_v6(&self) -> Address {
        let addr = self.ctx.sock_addr;
        // SAFETY: as above, word by word.
        Address::from_words(unsafe {
            [
                core::ptr::read_volatile(&raw const (*addr).msg_src_ip6[0]),
                core::ptr::read_volatile(&raw const (*addr).msg_src_ip6[1]),
                core::ptr::read_volatile(&raw const (*addr).msg_src_ip6[2]),
                core::ptr::read_volatile(&raw const (*addr).msg_src_ip6[3]),
            ]
        })
    }

    /// The port.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        // SAFETY: as above.
        u16::from_be(unsafe { (*self.ctx.sock_addr).user_port } as u16)
    }

    /// IP protocol of the socket.
    #[inline(always)]
    pub fn protocol(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.ctx.sock_addr).protocol }
    }

    /// The port that the socket is bound to, 0 if it is not bound yet.
    #[inline(always)]
    pub fn local_port(&self) -> u16 {
        // SAFETY: as above; the socket has been tested.
        self.socket().map_or(0, |socket| unsafe { (*socket).src_port } as u16)
    }

    /// Whether the socket is connected already.
    #[inline(always)]
    pub fn is_connected(&self) -> bool {
        // SAFETY: as above.
        self.socket().is_some_and(|socket| unsafe { (*socket).dst_port } != 0)
    }

    /// The socket.
    #[inline(always)]
    pub fn socket(&self) -> Option<*mut bpf_sock> {
        // SAFETY: as above.
        let socket = unsafe { (*self.ctx.sock_addr).__bindgen_anon_1.sk };
        if socket.is_null() { None } else { Some(socket) }
    }

    /// 127.0.0.0/8 and ::1, and the unspecified addresses, which the kernel takes for them.
    #[inline(always)]
    pub fn is_loopback(&self) -> bool {
        self.address.is_unspecified() || self.address.is_loopback()
    }

    /// As [`Address::is_multicast`].
    #[inline(always)]
    pub fn is_multicast(&self) -> bool {
        self.address.is_multicast()
    }

    /// The context for helpers.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut c_void {
        self.ctx.as_ptr()
    }
}
