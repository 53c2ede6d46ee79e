//! A load balancer on sockets, as some CNIs have instead of kube-proxy: programs on an ancestor of the pod's cgroup that put
//! a backend in the place of a Service, where connect(2) and sendmsg(2) are called.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
/// Attach types for IPv4 and IPv6.
const CONNECT: [u32; 2] = [10, 11];
const UDP_SENDMSG: [u32; 2] = [14, 15];
const UDP_RECVMSG: [u32; 2] = [19, 20];
/// Offsets in `struct bpf_sock_addr`, include/uapi/linux/bpf.h.
const USER_IP4: u64 = 4;
const USER_IP6: u64 = 8;
const USER_PORT: u64 = 24;

/// Balances until it is dropped.
pub struct SocketBalancer {
    _links: Vec<OwnedFd>,
}

impl SocketBalancer {
    /// For all processes below a cgroup: each Service with its one backend.
    pub fn new(cgroup: &Path, services: &[(&str, &str)]) -> Self {
        let pair = |(service, backend): &(&str, &str)| (address(service), address(backend));
        let there: Vec<_> = services.iter().map(pair).collect();
        let back: Vec<_> = there.iter().map(|(service, backend)| (*backend, *service)).collect();
        let cgroup = File::open(cgroup).expect("the cgroup");
        let hooks = [(CONNECT, &there), (UDP_SENDMSG, &there), (UDP_RECVMSG, &back)];
        let links = hooks.iter().flat_map(|(attach_types, pairs)| {
            let cgroup = &cgroup;
            attach_types.iter().enumerate().map(move |(family, attach_type)| {
                let of_family = pairs.iter().filter(|(from, _)| from.is_ipv6() == (family == 1));
                link(&load(of_family, *attach_type), cgroup, *attach_type)
            })
        });
        Self { _links: links.collect() }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

/// Where an address and a port are, as four bytes at each of these offsets, and what these are.
fn words(address: &SocketAddr) -> Vec<(u64, u64)> {
    let word = |bytes: &[u8]| u64::from(u32::from_ne_bytes(bytes.try_into().expect("four bytes")));
    let mut words: Vec<_> = match address.ip() {
        IpAddr::V4(ip) => vec![(USER_IP4, word(&ip.octets()))],
        IpAddr::V6(ip) => ip
            .octets()
            .chunks(4)
            .enumerate()
            .map(|(at, bytes)| (USER_IP6 + 4 * at as u64, word(bytes)))
            .collect(),
    };
    words.push((USER_PORT, u64::from(address.port().to_be())));
    words
}

/// Replaces each first address and port by the second; lets everything pass.
fn load<'a>(pairs: impl Iterator<Item = &'a (SocketAddr, SocketAddr)>, attach_type: u32) -> OwnedFd {
    let mut code: Vec<u64> = Vec::new();
    for (from, to) in pairs {
        let (from, to) = (words(from), words(to));
        let replace = to.iter().flat_map(|(offset, word)| {
            [0xb4 | 0x02 << 8 | word << 32, 0x63 | 0x21 << 8 | offset << 16] // w2 = to; field = r2
        });
        let mut left = 2 * (from.len() + to.len()) as u64;
        for (offset, word) in &from {
            left -= 2;
            // r2 = field; if w2 != from: next pair
            code.extend([0x61 | 0x12 << 8 | offset << 16, 0x56 | 0x02 << 8 | left << 16 | word << 32]);
        }
        code.extend(replace);
    }
    code.extend([0xb7 | 1 << 32, 0x95]); // r0 = 1; exit
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        kind: u32,
        length: u32,
        instructions: u64,
        license: u64,
        log: [u64; 3],
        name: [u8; 16],
        ifindex: u32,
        expected_attach_type: u32,
    }
    let mut attr = Attr {
        kind: BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        length: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        expected_attach_type: attach_type,
        ..Attr::default()
    };
    bpf(BPF_PROG_LOAD, &mut attr)
}

fn link(program: &OwnedFd, cgroup: &File, attach_type: u32) -> OwnedFd {
    let mut attr: [u32; 4] = [program.as_raw_fd() as u32, cgroup.as_raw_fd() as u32, attach_type, 0];
    bpf(BPF_LINK_CREATE, &mut attr)
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> OwnedFd {
    // SAFETY: the head of `union bpf_attr` for the command; its pointers live as long as the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    assert!(fd >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
