//! The DNS server: one address, UDP and TCP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::answer::{Transport, answer};
use super::{Zone, listen};

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
    let udp = Arc::new(listen::udp(address).with_context(what)?);
    let tcp = listen::tcp(address).with_context(what)?;
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
