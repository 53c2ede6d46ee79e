//! The DNS server: one address, UDP and TCP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, RwLock};

use anyhow::Context;
use nix::sys::socket::sockopt::{IpFreebind, Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::Zone;
use super::answer::{Transport, answer};

/// A zone that several servers share.
pub type SharedZone = Arc<RwLock<Zone>>;

/// An empty one.
pub fn shared_zone() -> SharedZone {
    Arc::default()
}

/// Answers on port 53 of `address`, in the background.
pub async fn serve(address: IpAddr, zone: SharedZone) -> anyhow::Result<()> {
    let address = SocketAddr::new(address, 53);
    let what = || format!("cannot serve DNS on {address}");
    let udp = Arc::new(UdpSocket::from_std(bound(address, SockType::Datagram).with_context(what)?.into())?);
    let tcp = bound(address, SockType::Stream).with_context(what)?;
    listen(&tcp, Backlog::new(128)?)?;
    let tcp = TcpListener::from_std(tcp.into())?;
    tokio::spawn(serve_udp(udp, zone.clone()));
    tokio::spawn(async move {
        loop {
            match tcp.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve_stream(stream, zone.clone()))),
                Err(error) => tracing::warn!("DNS over TCP on {address}: {error}"),
            }
        }
    });
    Ok(())
}

async fn serve_udp(socket: Arc<UdpSocket>, zone: SharedZone) {
    let mut buffer = vec![0; 65536];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, peer)) => {
                if let Some(bytes) = answer(&zone, &buffer[..length], Transport::Udp)
                    && let Err(error) = socket.send_to(&bytes, peer).await
                {
                    tracing::debug!("answer to {peer}: {error}");
                }
            }
            Err(error) => tracing::debug!("DNS: {error}"),
        }
    }
}

/// Two bytes of length come before every message: RFC 1035, section 4.2.2.
async fn serve_stream(mut stream: TcpStream, zone: SharedZone) -> io::Result<()> {
    loop {
        let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut buffer).await?;
        let Some(bytes) = answer(&zone, &buffer, Transport::Tcp) else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        // One write, so that length and message leave in one segment.
        stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat()).await?;
    }
}

/// IPv6 addresses that are local by route only can be bound with IP_FREEBIND.
fn bound(address: SocketAddr, type_: SockType) -> io::Result<std::os::fd::OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, type_, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&fd, IpFreebind, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, Ipv6V6Only, &true)?;
    }
    if type_ == SockType::Stream {
        setsockopt(&fd, ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}
