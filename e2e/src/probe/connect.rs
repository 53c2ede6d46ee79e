//! One connection, from the name to the echo.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, socket};
use serde::{Deserialize, Serialize};

use super::exchange::exchange;
use super::race::total_retransmissions;
use super::{Outcome, Protocol, Target, icmp, micros};

const MESSAGE: &[u8] = b"l7egg probe\n";

/// What became of one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectReport {
    /// What was asked for.
    pub target: Target,
    /// The address that it has, if it has one.
    pub address: Option<IpAddr>,
    /// What happened.
    pub outcome: Outcome,
    /// Microseconds from the question for its name to the outcome.
    pub micros: u64,
    /// How many of these it took to find its address.
    pub lookup_micros: u64,
    /// How many times the SYN of a TCP connection was sent again before it was made or refused.
    pub sent_again: u32,
    /// What of TCP did not get through at once, if anything: what only another try could reach was out of reach.
    pub later: Option<Later>,
}

/// What had to be sent again, by the kernel's own account. Not by the clock: any machine stands still for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Later {
    /// The SYN.
    Syn,
    /// The message, several times or by this host.
    Message,
}

/// No SYN is sent again before that: after a second if it was lost on its way (RFC 6298 §2), after half a second if it did not leave
/// (`TCP_RESOURCE_PROBE_INTERVAL` of include/net/tcp.h).
const SOONEST_SECOND_SYN: Duration = Duration::from_millis(450);
/// A message may be lost once on a busy machine, or its acknowledgement come later than the 200 ms after which it is sent again.
const OFTEN: u32 = 2;

/// Resolves the target with the system's resolver (glibc's getaddrinfo), connects at once to the first address
/// of the family, and exchanges a message. `timeout` is for the connection and the exchange, not for the name.
pub fn connect(target: &Target, timeout: Duration) -> ConnectReport {
    let start = Instant::now();
    let mut progress = Progress::default();
    let resolved = resolve(target);
    let lookup_micros = micros(start.elapsed());
    let (address, outcome) = match resolved {
        Err(outcome) => (None, outcome),
        Ok(address) => {
            let result = match target.protocol {
                Protocol::Tcp => tcp(address, timeout, &mut progress),
                Protocol::Udp => udp(address, timeout),
                Protocol::Icmp => icmp::ping(address.ip(), timeout),
            };
            (Some(address.ip()), result.err().map_or(Outcome::Ok, Outcome::from))
        }
    };
    let micros = micros(start.elapsed());
    let Progress { sent_again, later } = progress;
    ConnectReport { target: target.clone(), address, outcome, micros, lookup_micros, sent_again, later }
}

/// All of them at the same time, each in a thread of its own; the reports are in the order of the targets.
pub fn connect_all(targets: &[Target], timeout: Duration) -> Vec<ConnectReport> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            targets.iter().map(|target| scope.spawn(move || connect(target, timeout))).collect();
        threads
            .into_iter()
            .zip(targets)
            .map(|(thread, target)| {
                thread.join().unwrap_or_else(|_| ConnectReport {
                    target: target.clone(),
                    address: None,
                    outcome: Outcome::Error("the probe panicked".to_string()),
                    micros: 0,
                    lookup_micros: 0,
                    sent_again: 0,
                    later: None,
                })
            })
            .collect()
    })
}

/// The address that [`connect`] takes.
///
/// # Errors
/// [`Outcome::DnsFailure`] when there is none of the family.
pub fn resolve(target: &Target) -> Result<SocketAddr, Outcome> {
    (target.host.as_str(), target.port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.find(|address| target.family.contains(address.ip())))
        .ok_or(Outcome::DnsFailure)
}

/// What the kernel has told of a connection.
#[derive(Default)]
struct Progress {
    sent_again: u32,
    later: Option<Later>,
}

fn tcp(address: SocketAddr, timeout: Duration, progress: &mut Progress) -> io::Result<()> {
    let start = Instant::now();
    let opened = open(address, timeout, &mut progress.sent_again);
    // On a machine that is busy the other side's kernel may answer later than the 200 ms after which data is sent again.
    if progress.sent_again > 0 && start.elapsed() >= SOONEST_SECOND_SYN {
        progress.later = Some(Later::Syn);
    }
    let stream = opened?;
    stream.set_read_timeout(Some(timeout))?;
    let exchanged = exchange(&stream, MESSAGE)?;
    if exchanged.sent_again >= OFTEN || exchanged.was_kept && exchanged.took >= SOONEST_SECOND_SYN {
        progress.later = progress.later.or(Some(Later::Message));
    }
    Ok(())
}

/// As `TcpStream::connect_timeout` does it, which keeps nothing of a connection that is refused.
fn open(address: SocketAddr, timeout: Duration, sent_again: &mut u32) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = TcpStream::from(socket(family, SockType::Stream, flags, None)?);
    match nix::sys::socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => {}
        Err(Errno::EINPROGRESS) => {
            let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
            if poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)], timeout)? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    *sent_again = total_retransmissions(&stream)?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => stream.set_nonblocking(false).map(|()| stream),
    }
}

fn udp(address: SocketAddr, timeout: Duration) -> io::Result<()> {
    let socket = UdpSocket::bind(unspecified(address.ip()))?;
    socket.set_read_timeout(Some(timeout))?;
    // Connected, so that an ICMP error comes back and only the target's answer counts.
    socket.connect(address)?;
    socket.send(MESSAGE)?;
    let mut answer = [0; MESSAGE.len()];
    let length = socket.recv(&mut answer)?;
    expect(&answer[..length])
}

fn expect(answer: &[u8]) -> io::Result<()> {
    if answer == MESSAGE {
        Ok(())
    } else {
        Err(io::Error::other("another answer than the message that was sent"))
    }
}

fn unspecified(family_of: IpAddr) -> SocketAddr {
    match family_of {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}
