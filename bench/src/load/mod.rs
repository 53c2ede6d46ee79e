//! The traffic itself. Nothing here allocates while the clock runs.

mod client;
mod message;
mod serve;

pub use client::{Answer, Client, run};
pub use message::{A, AAAA, MESSAGE_MAX, address_of, answer, query};
pub use serve::serve;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use socket2::{Domain, SockRef, Socket, Type};

/// Where the DNS server answers. All of 198.18.0.0/15 (RFC 2544) is at home in the world.
pub const DNS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);
/// Takes connections and closes them.
pub const CONNECT_PORT: u16 = 9000;
/// Sends back every byte.
pub const ECHO_PORT: u16 = 9001;
/// Reads and forgets.
pub const SINK_PORT: u16 = 9002;
/// The domain whose names have addresses.
pub const DOMAIN: &str = "fresh.test";
/// The first address that a name has.
pub const FIRST: u32 = u32::from_be_bytes([198, 18, 64, 0]);
/// Names that have an address of their own.
pub const NAMES: u32 = u32::from_be_bytes([198, 19, 255, 0]) - FIRST;
/// An address that no name has.
pub const UNNAMED: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 7);

/// Stays on one processor from now on. All clients are on one, the servers on another (where there are two), so that
/// no variant is the one that happens to be beside its server.
pub fn stay_on(cpu: usize) -> Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(cpu % cpus)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("choosing a processor")
}

/// Connects for a measurement that lasts.
pub fn connect(to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    steady(&SockRef::from(&socket))?;
    socket.connect(&to.into()).with_context(|| format!("connecting to {to}"))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Has the connections of a socket that is not connected yet sent by the kernel's own congestion control, whatever the machine's:
/// some (bbr) send at a rate that they estimate, and what is measured then is their estimate.
pub fn steady(socket: &SockRef<'_>) -> Result<()> {
    socket.set_tcp_congestion(b"cubic").context("the congestion control cubic")
}
