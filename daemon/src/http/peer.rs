//! Who asks.

use std::net::{IpAddr, SocketAddr};

use tokio::net::unix;

/// An address that connections come from.
pub trait Peer {
    /// The host, where there is more than one.
    fn host(&self) -> Option<IpAddr>;
}

impl Peer for SocketAddr {
    fn host(&self) -> Option<IpAddr> {
        Some(self.ip().to_canonical())
    }
}

impl Peer for unix::SocketAddr {
    fn host(&self) -> Option<IpAddr> {
        None
    }
}
