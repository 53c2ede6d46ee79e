//! Who takes what is sent to the pod's own ports.

use core::ffi::c_void;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};
use l7egg_ebpf_common::abi::Address;

/// `BPF_F_CURRENT_NETNS`: the namespace of the packet or socket.
const CURRENT_NETNS: u64 = -1i32 as u64;

/// 1 if a TCP socket of the network namespace would take a connection to this address and port. `ctx` is
/// the program's context.
#[inline(never)]
pub fn tcp(ctx: *mut c_void, address: &Address, port: u16) -> i32 {
    // The far end stays empty, so that nothing but a listener is found.
    // SAFETY: plain data.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = towards(&mut tuple, address, port);
    // SAFETY: the tuple is as long as said; a socket that is found is given back.
    unsafe { found(bpf_sk_lookup_tcp(ctx, &raw mut tuple, size, CURRENT_NETNS, 0)) }
}

/// 1 if a UDP socket of the network namespace would take a datagram that comes from there. `ports` is its
/// source port in the upper half, and its destination port.
#[inline(never)]
pub fn udp(ctx: *mut c_void, source: &Address, destination: &Address, ports: u32) -> i32 {
    // SAFETY: plain data.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = towards(&mut tuple, destination, ports as u16);
    let source_port = ((ports >> 16) as u16).to_be();
    if destination.is_v4() {
        tuple.__bindgen_anon_1.ipv4.saddr = u32::from_ne_bytes(source.v4());
        tuple.__bindgen_anon_1.ipv4.sport = source_port;
    } else {
        tuple.__bindgen_anon_1.ipv6.saddr = source.words();
        tuple.__bindgen_anon_1.ipv6.sport = source_port;
    }
    // SAFETY: as above.
    unsafe { found(bpf_sk_lookup_udp(ctx, &raw mut tuple, size, CURRENT_NETNS, 0)) }
}

/// Fills in what is looked for, in place, because the stack has room for one tuple; its size.
#[inline(always)]
fn towards(tuple: &mut bpf_sock_tuple, a: &Address, port: u16) -> u32 {
    if a.is_v4() {
        tuple.__bindgen_anon_1.ipv4.daddr = u32::from_ne_bytes(a.v4());
        tuple.__bindgen_anon_1.ipv4.dport = port.to_be();
        12
    } else {
        tuple.__bindgen_anon_1.ipv6.daddr = a.words();
        tuple.__bindgen_anon_1.ipv6.dport = port.to_be();
        36
    }
}

/// 1 for a socket, which is given back.
///
/// # Safety
/// `socket` comes from a lookup just made, or is null.
#[inline(always)]
unsafe fn found(socket: *mut bpf_sock) -> i32 {
    if socket.is_null() {
        return 0;
    }
    // SAFETY: see above.
    unsafe { bpf_sk_release(socket.cast()) };
    1
}
