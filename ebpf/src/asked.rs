//! Destinations as programs ask for them, where others are put in their place.
//!
//! A load balancer on sockets (Cilium's without kube-proxy, say) is attached to an ancestor of the pod's cgroup and so
//! runs after our connect and sendmsg hooks: these see the Service, the packets go to one of its backends. What was asked
//! for is kept in the socket, and the packets are judged by it. Only for pods that such programs run for.
//!
//! In the host's network it is NAT (kube-proxy's): cgroup programs see what leaves behind it (`ip_finish_output` in
//! net/ipv4/ip_output.c), and what arrives behind it as well, where it is undone. So a packet that leaves is read as its
//! socket has it.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use l7egg_ebpf_common::abi::{ANSWERS_DISTRUSTED, Address, Asked, AskedBy, DISTRUSTED, DNS_PORT, protocol};
use l7egg_ebpf_common::packet::Packet;

use crate::maps::ASKED;
use crate::skb::{AF_INET, Skb};
use crate::sock_addr::SockAddr;
use crate::subject::Current;

/// What a packet is judged by.
#[repr(C)]
pub struct Destination {
    /// Address.
    pub address: Address,
    /// Port.
    pub port: u16,
}

/// Keeps what a program asks for. Before it is judged, so that nothing older stands in its place. `subject` has the policy, if there
/// is one yet.
///
/// Calls on several threads can overtake each other, and datagrams are held back (MSG_MORE) while their socket is connected
/// elsewhere. So a socket is not believed any more that changes between a resolver and anything else, or that has been connected
/// where nobody has judged it.
#[inline(always)]
pub fn remember(asked: &SockAddr<'_>, by: AskedBy, subject: Option<&Current>) {
    let Some(kept) =
        asked.socket().and_then(|socket| storage(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE)))
    else {
        return;
    };
    // SAFETY: the socket's own storage.
    unsafe {
        let is_connected = (*kept).connected != 0 || by == AskedBy::Connect;
        if (*kept).by != 0 && changes(&(*kept).address, (*kept).port, asked, subject) {
            // Of a socket that is never connected each destination is judged as it is asked for; but not what is asked of whom.
            let is_judged = !is_connected && subject.is_some_and(|subject| !subject.refuses());
            (*kept).distrusted |= if is_judged { ANSWERS_DISTRUSTED } else { DISTRUSTED };
        }
        match by {
            AskedBy::Connect => (*kept).connected = 1,
            AskedBy::Send if !is_connected && asked.is_connected() => (*kept).distrusted |= DISTRUSTED,
            AskedBy::Send => {}
        }
        (*kept).address = asked.address;
        (*kept).port = asked.port();
        (*kept).by = by as u16;
    }
}

/// Whether one of both is a resolver and the other is not. Without a policy, every server is for itself.
#[inline(always)]
fn changes(address: &Address, port: u16, asked: &SockAddr<'_>, subject: Option<&Current>) -> bool {
    let Some(subject) = subject else { return *address != asked.address || port != asked.port() };
    if port != DNS_PORT && asked.port() != DNS_PORT {
        return false;
    }
    (port == DNS_PORT && subject.trusts(address))
        != (asked.port() == DNS_PORT && subject.trusts(&asked.address))
}

/// Gives up on a UDP socket: it was connected to what may not be reached, which is no offence by itself. From now on
/// its packets are judged by where they go.
/// `ctx` is the context of a connect or sendmsg hook; a function of its own, because the stack of these is short.
#[inline(never)]
pub fn distrust(ctx: *mut c_void) -> i32 {
    let ctx: *mut bpf_sock_addr = ctx.cast();
    // SAFETY: the context of a connect or sendmsg hook; its socket is tested before it is used.
    let socket = unsafe { (*ctx).__bindgen_anon_1.sk };
    if socket.is_null() {
        return 0;
    }
    let Some(kept) = storage(socket, 0) else { return 0 };
    // SAFETY: the socket's own storage.
    unsafe { (*kept).distrusted |= DISTRUSTED };
    1
}

/// Puts what was asked for in the place of where a packet goes, if they differ; 1 if so. A function of its own, so
/// that what it compares leaves the stack.
#[inline(never)]
pub fn translate(skb: Skb, packet: &Packet, to: &mut Destination) -> i32 {
    let Some(socket) = skb.socket() else { return 0 };
    let Some(kept) = storage(socket, 0) else { return 0 };
    // SAFETY: the socket's own storage.
    let kept = unsafe { &*kept };
    if kept.address == packet.destination && kept.port == packet.destination_port {
        return 0;
    }
    let believed = if kept.by == AskedBy::Connect as u16 {
        // A datagram that was held back (MSG_MORE) goes where the socket was connected to then.
        packet.protocol == protocol::TCP
            || (kept.distrusted & DISTRUSTED == 0 && is_connected_to(socket, packet))
    } else {
        // SAFETY: a full socket.
        kept.distrusted & DISTRUSTED == 0 && unsafe { (*socket).dst_port == 0 }
    };
    if !believed {
        return 0;
    }
    to.address = kept.address;
    to.port = kept.port;
    1
}

/// 1 if a socket that has asked for a destination may have sent the packet: over its protocol and from its port. A function of its
/// own, so that the verifier comes by once.
#[inline(never)]
pub fn is_of_socket(skb: Skb, packet: &Packet) -> i32 {
    let Some(socket) = skb.socket() else { return 0 };
    // SAFETY: a full socket.
    let (number, port) = unsafe { ((*socket).protocol, (*socket).src_port) };
    i32::from(
        number == u32::from(packet.protocol)
            && port == u32::from(packet.source_port)
            && storage(socket, 0).is_some(),
    )
}

crate::global! {
    /// Gives a packet the ends that its socket has: 1 if it could. Of UDP only what the hooks have judged is believed, as a
    /// datagram can be held back (MSG_MORE) while its socket is connected elsewhere.
    fn ends_of_socket(skb: Skb, packet: &mut Packet) -> i32 {
        if packet.protocol != protocol::TCP && packet.protocol != protocol::UDP {
            return 0;
        }
        let Some(socket) = skb.socket() else { return 0 };
        // SAFETY: a full socket.
        let (local_port, remote_port) = unsafe { ((*socket).src_port as u16, u16::from_be((*socket).dst_port)) };
        packet.source_port = local_port;
        if packet.protocol == protocol::TCP {
            // That of a listener, which says nothing.
            if remote_port == 0 {
                return 0;
            }
            packet.destination = remote_address(socket);
            packet.destination_port = remote_port;
            return 1;
        }
        let Some(kept) = storage(socket, 0) else { return 0 };
        // SAFETY: the socket's own storage.
        let kept = unsafe { &*kept };
        let is_as_asked = if kept.by == AskedBy::Connect as u16 { kept.port == remote_port } else { remote_port == 0 };
        if kept.distrusted & DISTRUSTED != 0 || !is_as_asked {
            return 0;
        }
        packet.destination = kept.address;
        packet.destination_port = kept.port;
        1
    }
}

/// Reads a packet as its socket has it, before the host's NAT.
#[inline(always)]
pub fn undo_nat(skb: Skb, packet: &mut Packet) {
    ends_of_socket(skb, packet);
}

/// 1 if the socket that a packet arrives for asked one of the pod's own DNS servers.
#[inline(never)]
pub fn is_of_resolver(skb: Skb, subject: &Current) -> i32 {
    let Some(kept) = skb.socket().and_then(|socket| storage(socket, 0)) else { return 0 };
    // SAFETY: as above. Copied, so that the map's key is not map memory.
    let (address, port, distrusted) = unsafe { ((*kept).address, (*kept).port, (*kept).distrusted) };
    i32::from(distrusted == 0 && port == DNS_PORT && subject.trusts(&address))
}

#[inline(always)]
fn is_connected_to(socket: *mut bpf_sock, packet: &Packet) -> bool {
    remote_address(socket) == packet.destination
}

/// Whom a full socket is connected to.
#[inline(always)]
fn remote_address(socket: *mut bpf_sock) -> Address {
    // SAFETY: a full socket. All fields are read, one by one, whatever the family: the verifier refuses a pointer that
    // was computed.
    let (family, v4, v6) = unsafe {
        (
            (*socket).family,
            (&raw const (*socket).dst_ip4).read_volatile(),
            [
                (&raw const (*socket).dst_ip6[0]).read_volatile(),
                (&raw const (*socket).dst_ip6[1]).read_volatile(),
                (&raw const (*socket).dst_ip6[2]).read_volatile(),
                (&raw const (*socket).dst_ip6[3]).read_volatile(),
            ],
        )
    };
    if family == AF_INET { Address::mapped(v4.to_ne_bytes()) } else { Address::from_words(v6) }
}

#[inline(always)]
fn storage(socket: *mut bpf_sock, flags: u64) -> Option<*mut Asked> {
    // SAFETY: `socket` is tested for null.
    let found = unsafe {
        bpf_sk_storage_get((&raw const ASKED).cast_mut().cast(), socket.cast(), core::ptr::null_mut(), flags)
    };
    if found.is_null() { None } else { Some(found.cast()) }
}
