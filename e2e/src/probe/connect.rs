//! One connection, from the name to the echo.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::race::total_retransmissions as sent_again_of;
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
    /// How many times the SYN of a TCP connection was sent again before it was made.
    pub sent_again: u32,
}

/// Resolves the target with the system's resolver (glibc's getaddrinfo), connects at once to the first address
/// of the family, and exchanges a message. `timeout` is for the connection and the exchange, not for the name.
pub fn connect(target: &Target, timeout: Duration) -> ConnectReport {
    let start = Instant::now();
    let mut sent_again = 0;
    let (address, outcome) = match resolve(target) {
        Err(outcome) => (None, outcome),
        Ok(address) => {
            let result = match target.protocol {
                Protocol::Tcp => tcp(address, timeout, &mut sent_again),
                Protocol::Udp => udp(address, timeout),
                Protocol::Icmp => icmp::ping(address.ip(), timeout),
            };
            (Some(address.ip()), result.err().map_or(Outcome::Ok, Outcome::from))
        }
    };
    ConnectReport { target: target.clone(), address, outcome, micros: micros(start.elapsed()), sent_again }
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
                    sent_again: 0,
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

fn tcp(address: SocketAddr, timeout: Duration, sent_again: &mut u32) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    *sent_again = sent_again_of(&stream)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(MESSAGE)?;
    let mut answer = [0; MESSAGE.len()];
    stream.read_exact(&mut answer)?;
    expect(&answer)
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
