//! The race between an answer and the connection that follows it: fresh names, each with a fresh address.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Percentiles;

const MAX_SAMPLES: usize = 10;

/// What to race.
#[derive(Clone, Debug)]
pub struct Race {
    /// A name with `{}` for its index.
    pub pattern: String,
    /// The first index.
    pub first: u32,
    /// How many names.
    pub count: u32,
    /// The TCP port.
    pub port: u16,
    /// How many threads.
    pub concurrency: u32,
    /// How long a connection may take. Longer than the first retransmission of a SYN (1 s), so that it is counted.
    pub timeout: Duration,
    /// Which addresses to connect to.
    pub families: Families,
}

/// Which of a name's addresses to connect to; both are always asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Families {
    /// IPv4.
    #[value(name = "4")]
    V4,
    /// IPv6.
    #[value(name = "6")]
    V6,
    /// By turns.
    Alternate,
    /// First the one, then the other.
    Both,
}

/// Who won.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaceReport {
    /// How many names were asked for.
    pub names: u32,
    /// How many connections were begun.
    pub connections: u32,
    /// Names without an address of a family that was wanted.
    pub resolve_failures: u32,
    /// Connections that failed.
    pub connect_failures: u32,
    /// Connections that sent their SYN more than once (`tcpi_total_retrans`).
    pub retried_syns: u32,
    /// Segments of all TCP connections of the pod that were sent again meanwhile (`/proc/net/snmp`).
    pub retransmitted_segments: u64,
    /// The first failures.
    pub samples: Vec<String>,
    /// Microseconds from the question to the addresses.
    pub resolve: Percentiles,
    /// Microseconds from there to the connection.
    pub connect: Percentiles,
}

impl RaceReport {
    /// Whether the answer was always first.
    pub fn is_clean(&self) -> bool {
        self.resolve_failures == 0 && self.connect_failures == 0 && self.retried_syns == 0
    }
}

/// Resolves each name with getaddrinfo and connects at once.
///
/// # Errors
/// When `/proc/net/snmp` cannot be read.
pub fn race(race: &Race) -> io::Result<RaceReport> {
    let before = retransmitted_segments()?;
    let next = AtomicU32::new(0);
    let runners = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..race.concurrency.max(1)).map(|_| scope.spawn(|| Runner::run(race, &next))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
    });
    let (mut report, mut resolves, mut connects) = (RaceReport::default(), Vec::new(), Vec::new());
    for runner in runners {
        report.names += runner.report.names;
        report.connections += runner.report.connections;
        report.resolve_failures += runner.report.resolve_failures;
        report.connect_failures += runner.report.connect_failures;
        report.retried_syns += runner.report.retried_syns;
        report.samples.extend(runner.report.samples);
        resolves.extend(runner.resolves);
        connects.extend(runner.connects);
    }
    report.samples.truncate(MAX_SAMPLES);
    report.retransmitted_segments = retransmitted_segments()?.saturating_sub(before);
    report.resolve = Percentiles::of(&resolves);
    report.connect = Percentiles::of(&connects);
    Ok(report)
}

#[derive(Default)]
struct Runner {
    report: RaceReport,
    resolves: Vec<Duration>,
    connects: Vec<Duration>,
}

impl Runner {
    fn run(race: &Race, next: &AtomicU32) -> Self {
        let mut runner = Runner::default();
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= race.count {
                return runner;
            }
            runner.one(race, race.first + turn);
        }
    }

    fn one(&mut self, race: &Race, index: u32) {
        let name = race.pattern.replace("{}", &index.to_string());
        self.report.names += 1;
        let start = Instant::now();
        let resolved = (name.as_str(), race.port).to_socket_addrs();
        self.resolves.push(start.elapsed());
        let addresses: Vec<SocketAddr> = resolved.map(Iterator::collect).unwrap_or_default();
        let find =
            |wanted: fn(&IpAddr) -> bool| addresses.iter().find(|address| wanted(&address.ip())).copied();
        let wanted = match race.families {
            Families::V4 => vec![find(IpAddr::is_ipv4)],
            Families::V6 => vec![find(IpAddr::is_ipv6)],
            Families::Both => vec![find(IpAddr::is_ipv4), find(IpAddr::is_ipv6)],
            Families::Alternate if index.is_multiple_of(2) => vec![find(IpAddr::is_ipv4)],
            Families::Alternate => vec![find(IpAddr::is_ipv6)],
        };
        for address in wanted {
            match address {
                Some(address) => self.connect(&name, address, race.timeout),
                None => {
                    self.report.resolve_failures += 1;
                    self.sample(format!("{name}: got only {addresses:?}"));
                }
            }
        }
    }

    fn connect(&mut self, name: &str, address: SocketAddr, timeout: Duration) {
        self.report.connections += 1;
        let start = Instant::now();
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                self.connects.push(start.elapsed());
                match total_retransmissions(&stream) {
                    Ok(0) => {}
                    Ok(count) => {
                        self.report.retried_syns += 1;
                        self.sample(format!("{name} {address}: {count} SYNs sent again"));
                    }
                    Err(error) => self.sample(format!("{name} {address}: TCP_INFO: {error}")),
                }
            }
            Err(error) => {
                self.report.connect_failures += 1;
                self.sample(format!("{name} {address}: {error}"));
            }
        }
    }

    fn sample(&mut self, text: String) {
        if self.report.samples.len() < MAX_SAMPLES {
            self.report.samples.push(text);
        }
    }
}

/// How many segments of a connection were sent again so far (`tcpi_total_retrans`): SYNs, if it has just been made.
pub(super) fn total_retransmissions(stream: &TcpStream) -> io::Result<u32> {
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

/// `RetransSegs` of the `Tcp` lines: first the names, then the values.
fn retransmitted_segments() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    names
        .split(' ')
        .zip(values.split(' '))
        .find_map(|(name, value)| (name == "RetransSegs").then(|| value.parse().ok())?)
        .ok_or_else(|| io::Error::other("/proc/net/snmp has no RetransSegs"))
}
