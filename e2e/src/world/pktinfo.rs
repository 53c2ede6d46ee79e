//! A UDP socket that answers from the address that was asked.
//!
//! A wildcard socket would send from whichever address the route gives, and no client would know the answer
//! for its own. IPV6_PKTINFO (RFC 3542, section 4) tells the address that a datagram came to, and sets the one
//! that it leaves from; Linux does both for IPv4 as well, as mapped addresses.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::sockopt::{IpFreebind, Ipv6RecvPacketInfo, Ipv6V6Only};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn6, bind,
    recvmsg, sendmsg, setsockopt, socket,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A socket for one port on every address of both families.
pub struct AnyAddressSocket(UdpSocket);

/// Who asked, and at which of our addresses.
#[derive(Clone, Copy)]
pub struct Peer {
    from: SockaddrIn6,
    to: Ipv6Addr,
}

impl Peer {
    /// The address and port of the other side, IPv4 as such.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(canonical(self.from.ip()), self.from.port())
    }

    /// Our address that was asked.
    pub fn local(&self) -> IpAddr {
        canonical(self.to)
    }
}

impl AnyAddressSocket {
    /// Opens the port.
    pub fn bind(port: u16) -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Inet6,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        setsockopt(&fd, Ipv6V6Only, &false)?;
        setsockopt(&fd, Ipv6RecvPacketInfo, &true)?;
        // Or the kernel would refuse to send from an IPv6 address that is local by route only.
        setsockopt(&fd, IpFreebind, &true)?;
        let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
        bind(fd.as_raw_fd(), &SockaddrIn6::from(any))?;
        Ok(AnyAddressSocket(UdpSocket::from_std(fd.into())?))
    }

    /// Receives one datagram: its length, and whom to answer.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        self.0
            .async_io(Interest::READABLE, || {
                let mut control = cmsg_space!(libc::in6_pktinfo);
                let mut slices = [IoSliceMut::new(buffer)];
                let message = recvmsg::<SockaddrIn6>(
                    self.0.as_raw_fd(),
                    &mut slices,
                    Some(&mut control),
                    MsgFlags::empty(),
                )?;
                let to = message.cmsgs()?.find_map(|control| match control {
                    ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
                    _ => None,
                });
                match (message.address, to) {
                    (Some(from), Some(to)) => Ok((message.bytes, Peer { from, to })),
                    _ => Err(io::Error::other("the kernel gave no address for a datagram")),
                }
            })
            .await
    }

    /// Answers `peer` from the address that it asked.
    pub async fn reply(&self, bytes: &[u8], peer: Peer) -> io::Result<usize> {
        let info =
            libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: peer.to.octets() }, ipi6_ifindex: 0 };
        self.0
            .async_io(Interest::WRITABLE, || {
                Ok(sendmsg(
                    self.0.as_raw_fd(),
                    &[IoSlice::new(bytes)],
                    &[ControlMessage::Ipv6PacketInfo(&info)],
                    MsgFlags::empty(),
                    Some(&peer.from),
                )?)
            })
            .await
    }
}

fn canonical(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}
