//! A client in a pod. It is told line by line what to do, and answers each with a line.
//!
//! ```text
//! cycles <first> <count>    resolve and connect, so many fresh names: {"nanoseconds": […], "failures": n}
//! try <address>             "open" or "closed": a connection to an address that no name has
//! echo <milliseconds>       round trips of one byte on one connection: their number
//! stream <milliseconds>     bytes sent on one connection: their number
//! ```

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{A, AAAA, CONNECT_PORT, ECHO_PORT, MESSAGE_MAX, SINK_PORT, address_of, connect, query, stay_on};

/// Longer than the first retransmission of a SYN (1 s).
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long an address that must not be reached is tried.
const TRY: Duration = Duration::from_millis(300);
/// Bytes of one write of a stream.
const BLOCK: usize = 128 << 10;

/// Whom the client talks to.
#[derive(clap::Args)]
pub struct Client {
    /// The pod's DNS server
    #[arg(long)]
    resolver: Ipv4Addr,
    /// The servers of echo and stream
    #[arg(long)]
    server: Ipv4Addr,
}

/// What became of a block of cycles.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// How long each cycle took that led to a connection.
    pub nanoseconds: Vec<u64>,
    /// Cycles without an address, or whose first connection failed or had to send its SYN again.
    pub failures: u32,
}

/// Does what the lines of standard input say until they end.
pub fn run(client: &Client) -> Result<()> {
    stay_on(0)?;
    let (mut echo, mut stream) = (None, None);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words.as_slice() {
            ["cycles", first, count] => {
                serde_json::to_string(&cycles(client.resolver, first.parse()?, count.parse()?))?
            }
            ["try", address] => {
                let address = SocketAddr::from((address.parse::<Ipv4Addr>()?, CONNECT_PORT));
                let open = TcpStream::connect_timeout(&address, TRY).is_ok();
                if open { "open" } else { "closed" }.to_owned()
            }
            ["echo", milliseconds] => {
                let stream = connected(&mut echo, client.server, ECHO_PORT)?;
                round_trips(stream, Duration::from_millis(milliseconds.parse()?))?.to_string()
            }
            ["stream", milliseconds] => {
                let stream = connected(&mut stream, client.server, SINK_PORT)?;
                send(stream, Duration::from_millis(milliseconds.parse()?))?.to_string()
            }
            _ => bail!("{line:?} is no command"),
        };
        println!("{answer}");
    }
    Ok(())
}

fn cycles(resolver: Ipv4Addr, first: u32, count: u32) -> Answer {
    let mut answer = Answer { nanoseconds: Vec::with_capacity(count as usize), failures: 0 };
    for index in first..first + count {
        match cycle(resolver, index) {
            Ok((took, 0)) => answer.nanoseconds.push(took.as_nanos() as u64),
            // It came through in the end; how long that took belongs into the sample too.
            Ok((took, _)) => {
                answer.nanoseconds.push(took.as_nanos() as u64);
                answer.failures += 1;
            }
            Err(_) => answer.failures += 1,
        }
    }
    answer
}

/// Asks for both kinds of addresses of a name from a new socket, as glibc does, and connects to the one that there
/// is. How long that took, and how many segments were sent again.
fn cycle(resolver: Ipv4Addr, index: u32) -> io::Result<(Duration, u32)> {
    let mut message = [0; MESSAGE_MAX];
    // The answers come in any order.
    let ids = [index as u16, !(index as u16)];
    let started = Instant::now();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((resolver, 53))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut asked = 0;
    for (id, kind) in ids.into_iter().zip([A, AAAA]) {
        asked = query(&mut message, id, index, kind);
        socket.send(&message[..asked])?;
    }
    let mut found = None;
    for _ in ids {
        let len = socket.recv(&mut message)?;
        found = found.or(address_of(&message[..len], ids[0], asked));
    }
    let address = found.ok_or_else(|| io::Error::other("no address"))?;
    let stream = TcpStream::connect_timeout(&SocketAddr::from((address, CONNECT_PORT)), TIMEOUT)?;
    let took = started.elapsed();
    let again = sent_again(&stream)?;
    close_at_once(&stream)?;
    Ok((took, again))
}

fn connected(known: &mut Option<TcpStream>, server: Ipv4Addr, port: u16) -> Result<&mut TcpStream> {
    if known.is_none() {
        *known = Some(connect((server, port).into())?);
    }
    known.as_mut().context("it was just set")
}

fn round_trips(stream: &mut TcpStream, time: Duration) -> io::Result<u64> {
    let started = Instant::now();
    let mut count = 0;
    let mut byte = [0];
    while started.elapsed() < time {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        count += 1;
    }
    Ok(count)
}

fn send(stream: &mut TcpStream, time: Duration) -> io::Result<u64> {
    let block = vec![0; BLOCK];
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < time {
        sent += stream.write(&block)? as u64;
    }
    Ok(sent)
}

fn sent_again(stream: &TcpStream) -> io::Result<u32> {
    // SAFETY: all-zero bytes are a valid tcp_info, which is plain integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which is that long.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(info.tcpi_total_retrans) } else { Err(io::Error::last_os_error()) }
}

/// By a reset, so that no connection waits for its end while others are measured.
fn close_at_once(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the kernel reads as many bytes as `linger` has.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
