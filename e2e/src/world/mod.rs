//! The test world: an authoritative DNS server whose answers a test controls, and TCP and UDP servers on a
//! hundred thousand addresses. It runs on every node (see `world.yaml`), so that a pod's packets find it on
//! the pod's own node and no route outside the cluster has to change.

mod answer;
mod control;
mod dns;
mod echo;
mod fresh;
mod listen;
mod net;
mod pktinfo;
mod zone;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use control::{load_message, rrset_message, send};
pub use echo::{serve_tcp, serve_udp};
pub use fresh::{FRESH_NAMES, fresh_address4, fresh_address6};
pub use zone::Zone;

/// Every IPv4 address of the world: RFC 2544's block for benchmarks, which no network routes.
pub const NET4: &str = "198.18.0.0/15";
/// Every IPv6 address of the world, from RFC 3849's block for documentation.
pub const NET6: &str = "2001:db8:18::/48";

/// The resolver that client pods use.
pub const RESOLVER4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);
/// The same over IPv6.
pub const RESOLVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, 0x53);
/// A resolver with the same answers that client pods do not use: what it says must open nothing.
pub const STRANGER4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 54);
/// The same over IPv6.
pub const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, 0x54);

/// TCP ports that echo, on every address of the world.
pub const TCP_PORTS: [u16; 8] = [80, 443, 7999, 8000, 8050, 8100, 8101, 9000];
/// UDP ports that echo, on every address of the world.
pub const UDP_PORTS: [u16; 6] = [123, 443, 7999, 8000, 8101, 9000];

/// Runs the world until SIGTERM or SIGINT: routes its addresses to this host, and serves.
///
/// # Errors
/// When a route cannot be set or a port is taken; the message says which.
pub async fn run() -> anyhow::Result<()> {
    let routes = net::Routes::add().await?;
    let zone = dns::shared_zone();
    for address in
        [IpAddr::V4(RESOLVER4), IpAddr::V6(RESOLVER6), IpAddr::V4(STRANGER4), IpAddr::V6(STRANGER6)]
    {
        dns::serve(address, zone.clone()).await?;
    }
    for port in TCP_PORTS {
        serve_tcp(port)?;
    }
    for port in UDP_PORTS {
        serve_udp(port)?;
    }
    tracing::info!(
        "serving {NET4} and {NET6}: DNS on {RESOLVER4} and {RESOLVER6}, TCP echo on {TCP_PORTS:?}, UDP echo on {UDP_PORTS:?}"
    );
    stop_signal().await?;
    routes.remove().await
}

async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => result,
    }
}
