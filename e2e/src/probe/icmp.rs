//! An echo request (RFC 792, RFC 4443) through a raw socket, which root in a pod may open.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto, setsockopt,
    socket,
};
use nix::sys::time::TimeVal;

const HEADER: usize = 8;

/// Sends one echo request and waits for its reply.
pub fn ping(address: IpAddr, timeout: Duration) -> io::Result<()> {
    let (family, protocol, request, reply) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let id = request_id();
    let mut message = [request, 0, 0, 0, id[0], id[1], 0, 1];
    // The kernel fills in ICMPv6's checksum, which covers addresses too.
    if address.is_ipv4() {
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    let deadline = Instant::now() + timeout;
    sendto(fd.as_raw_fd(), &message, &SockaddrStorage::from(SocketAddr::new(address, 0)), MsgFlags::empty())?;
    loop {
        let answer = receive(&fd, deadline)?;
        // A raw IPv4 socket gives the IP header as well.
        let skip = if address.is_ipv4() { usize::from(answer.first().unwrap_or(&0) & 0xf) * 4 } else { 0 };
        match answer.get(skip..skip + HEADER) {
            Some(icmp) if icmp[0] == reply && icmp[4..6] == id => return Ok(()),
            _ => {}
        }
    }
}

fn receive(fd: &OwnedFd, deadline: Instant) -> io::Result<Vec<u8>> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let left =
        TimeVal::new(left.as_secs() as libc::time_t, libc::suseconds_t::from(left.subsec_micros().max(1)));
    setsockopt(fd, ReceiveTimeout, &left)?;
    let mut buffer = vec![0; 1500];
    let (length, _) = recvfrom::<SockaddrStorage>(fd.as_raw_fd(), &mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Raw sockets see every reply that the pod gets, so each request needs an identifier of its own.
fn request_id() -> [u8; 2] {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    (std::process::id() as u16).wrapping_mul(257).wrapping_add(count).to_be_bytes()
}

/// The internet checksum: RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    #[test]
    fn checksum_of_an_echo_request() {
        assert_eq!(super::checksum(&[8, 0, 0, 0, 0x12, 0x34, 0, 1]), 0xe5ca);
    }
}
