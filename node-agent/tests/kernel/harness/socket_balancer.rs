//! A load balancer on sockets, as some CNIs have instead of kube-proxy: programs on an ancestor of the pod's cgroup that put
//! a backend in the place of a Service, where connect(2) and sendmsg(2) are called.

use std::fs::File;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const INET4_CONNECT: u32 = 10;
const UDP4_SENDMSG: u32 = 14;
const UDP4_RECVMSG: u32 = 19;
/// Offsets in `struct bpf_sock_addr`, include/uapi/linux/bpf.h.
const USER_IP4: u64 = 4;
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
        let hooks = [(INET4_CONNECT, &there), (UDP4_SENDMSG, &there), (UDP4_RECVMSG, &back)];
        let links =
            hooks.iter().map(|(attach_type, pairs)| link(&load(pairs, *attach_type), &cgroup, *attach_type));
        Self { _links: links.collect() }
    }
}

fn address(text: &str) -> SocketAddrV4 {
    text.parse().expect("an address with a port")
}

/// Replaces each first address and port by the second; lets everything pass.
fn load(pairs: &[(SocketAddrV4, SocketAddrV4)], attach_type: u32) -> OwnedFd {
    let ip = |address: &SocketAddrV4| u64::from(u32::from_ne_bytes(address.ip().octets()));
    let port = |address: &SocketAddrV4| u64::from(address.port().to_be());
    let mut code = Vec::new();
    for (from, to) in pairs {
        code.extend([
            0x61 | 0x12 << 8 | USER_IP4 << 16,           // r2 = user_ip4
            0x56 | 0x02 << 8 | 6 << 16 | ip(from) << 32, // if w2 != from: next pair
            0x61 | 0x12 << 8 | USER_PORT << 16,          // r2 = user_port
            0x56 | 0x02 << 8 | 4 << 16 | port(from) << 32,
            0xb4 | 0x02 << 8 | ip(to) << 32,   // w2 = to
            0x63 | 0x21 << 8 | USER_IP4 << 16, // user_ip4 = r2
            0xb4 | 0x02 << 8 | port(to) << 32,
            0x63 | 0x21 << 8 | USER_PORT << 16,
        ]);
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
