//! Servers that say back what they hear, on every address of the host. A TCP connection that begins like HTTP
//! gets one line of text instead, so that curl is a client too.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::listen;
use super::pktinfo::AnyAddressSocket;

/// Echoes on a TCP port, in the background. Must be called within a tokio runtime.
///
/// # Errors
/// When the port is taken.
pub fn serve_tcp(port: u16) -> anyhow::Result<()> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = listen::tcp(any).with_context(|| format!("cannot listen on TCP port {port}"))?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(echo(stream))),
                Err(error) => tracing::warn!("TCP port {port}: {error}"),
            }
        }
    });
    Ok(())
}

/// Echoes on a UDP port, in the background. Must be called within a tokio runtime.
///
/// # Errors
/// When the port is taken.
pub fn serve_udp(port: u16) -> anyhow::Result<()> {
    let socket = AnyAddressSocket::bind(port).with_context(|| format!("cannot bind UDP port {port}"))?;
    tokio::spawn(async move {
        let mut buffer = vec![0; 65536];
        loop {
            // An error here is about one datagram, such as a client that has gone.
            match socket.receive(&mut buffer).await {
                Ok((length, peer)) => {
                    if let Err(error) = socket.reply(&buffer[..length], peer).await {
                        tracing::debug!("UDP port {port}: {} to {}: {error}", peer.local(), peer.remote());
                    }
                }
                Err(error) => tracing::debug!("UDP port {port}: {error}"),
            }
        }
    });
    Ok(())
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16384];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        if buffer.starts_with(b"GET ") || buffer.starts_with(b"HEAD ") {
            let body = format!("{}\n", stream.local_addr()?.ip().to_canonical());
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            return stream.write_all(body.as_bytes()).await;
        }
        stream.write_all(&buffer[..length]).await?;
    }
}
