//! Who listens on the pod's own ports.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_sock_tuple;
use aya_ebpf::helpers::{bpf_sk_lookup_tcp, bpf_sk_release};
use l7egg_ebpf_common::abi::{Address, mapped};

/// `BPF_F_CURRENT_NETNS`: the namespace of the packet or socket.
const CURRENT_NETNS: u64 = -1i32 as u64;

/// 1 if a TCP socket of the network namespace would take a connection to this address and port. `ctx` is
/// the program's context.
#[inline(never)]
pub fn exists(ctx: *mut c_void, address: &Address, port: u16) -> i32 {
    // SAFETY: plain data.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let a = address;
    // The far end stays empty, so that nothing but a listener is found.
    let size = if is_v4(address) {
        tuple.__bindgen_anon_1.ipv4.daddr = u32::from_ne_bytes([a[12], a[13], a[14], a[15]]);
        tuple.__bindgen_anon_1.ipv4.dport = port.to_be();
        12
    } else {
        tuple.__bindgen_anon_1.ipv6.daddr = [
            u32::from_ne_bytes([a[0], a[1], a[2], a[3]]),
            u32::from_ne_bytes([a[4], a[5], a[6], a[7]]),
            u32::from_ne_bytes([a[8], a[9], a[10], a[11]]),
            u32::from_ne_bytes([a[12], a[13], a[14], a[15]]),
        ];
        tuple.__bindgen_anon_1.ipv6.dport = port.to_be();
        36
    };
    // SAFETY: the tuple is as long as said; a socket that is found is given back.
    unsafe {
        let found = bpf_sk_lookup_tcp(ctx, &raw mut tuple, size, CURRENT_NETNS, 0);
        if found.is_null() {
            return 0;
        }
        bpf_sk_release(found.cast());
        1
    }
}

/// Whether the address is an IPv4 one, mapped.
#[inline(always)]
pub fn is_v4(address: &Address) -> bool {
    address[..12] == mapped([0; 4])[..12]
}
