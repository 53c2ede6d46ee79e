//! What client pods run: see `l7egg_e2e::probe`.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use l7egg_e2e::probe::{self, Families, Load, Race, Target};
use l7egg_e2e::world;
use serde::Serialize;

/// Tries connections and reports each as a line of JSON. Exits with 0 when it did what it was asked, whatever
/// became of the connections.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  probe connect tcp://api.shop.test:443 udp6://n1.fresh.test:123 icmp4://api.shop.test
  probe resolve tcp://api.shop.test:0
  probe hold tcp://198.18.0.80:80 --seconds 30
  probe bulk tcp://198.18.0.80:80 --seconds 5
  probe watch udp://198.18.0.80:123 --until-line
  probe race --count 10000 --pattern 'n{}.fresh.test'
  probe serve --tcp 8080 --udp 8080"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Connect to each target, all at the same time, and exchange a message.
    Connect {
        /// How long a connection may take, in milliseconds.
        #[arg(long, default_value_t = 2000)]
        timeout_ms: u64,
        /// tcp://HOST:PORT, udp://HOST:PORT, icmp://HOST; tcp4, tcp6 … choose the family.
        #[arg(required = true)]
        targets: Vec<Target>,
    },
    /// Print the address that `connect` would take.
    Resolve {
        /// As for `connect`.
        #[arg(required = true)]
        targets: Vec<Target>,
    },
    /// Keep one TCP connection busy, and print what became of it in the end.
    Hold {
        /// A tcp target.
        target: Target,
        /// Between two messages, in milliseconds.
        #[arg(long, default_value_t = 100)]
        interval_ms: u64,
        /// How long an echo may take before it counts as a break, in milliseconds.
        #[arg(long, default_value_t = 5000)]
        patience_ms: u64,
        #[command(flatten)]
        until: Until,
    },
    /// Send as much as a TCP connection carries to an echo server, and print what came back in which time.
    Bulk {
        /// A tcp target.
        target: Target,
        /// How long to send.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Try a target again and again, and print each change of the outcome.
    Watch {
        /// Best a udp target, whose denial is immediate.
        target: Target,
        /// Between two tries, in milliseconds.
        #[arg(long, default_value_t = 2)]
        interval_ms: u64,
        /// How long a try may take, in milliseconds.
        #[arg(long, default_value_t = 50)]
        timeout_ms: u64,
        #[command(flatten)]
        until: Until,
    },
    /// Resolve fresh names and connect to each at once; count failures and SYNs that were sent again.
    Race {
        /// A name with {} for its index.
        #[arg(long, default_value = "n{}.fresh.test")]
        pattern: String,
        /// The first index.
        #[arg(long, default_value_t = 0)]
        first: u32,
        /// How many names.
        #[arg(long, default_value_t = 1000)]
        count: u32,
        /// The TCP port.
        #[arg(long, default_value_t = 80)]
        port: u16,
        /// How many threads.
        #[arg(long, default_value_t = 4)]
        concurrency: u32,
        /// How long a connection may take, in milliseconds.
        #[arg(long, default_value_t = 3000)]
        timeout_ms: u64,
        /// Which addresses to connect to.
        #[arg(long, value_enum, default_value = "alternate")]
        families: Families,
    },
    /// Look up and connect at a steady rate, by turns where it must succeed and where it must not; count what is wrong.
    Load {
        /// A target with {} for an index, that must be reached. Several take turns.
        #[arg(long, required = true)]
        allowed: Vec<String>,
        /// The same, that must not.
        #[arg(long, required = true)]
        denied: Vec<String>,
        /// Connections a second.
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// How long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Count the programs that are attached to a cgroup and those below it, and to the interfaces of this network.
    Attached {
        /// The cgroup's directory.
        cgroup: PathBuf,
    },
    /// Echo on these ports of every address until SIGTERM.
    Serve {
        /// TCP ports.
        #[arg(long)]
        tcp: Vec<u16>,
        /// UDP ports.
        #[arg(long)]
        udp: Vec<u16>,
    },
}

#[derive(Args)]
struct Until {
    /// Stop after so many seconds.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Stop when a line, or the end, comes on standard input.
    #[arg(long)]
    until_line: bool,
}

impl Until {
    fn watcher(&self) -> impl FnMut() -> bool + use<> {
        let end = Instant::now() + Duration::from_secs(self.seconds);
        let stopped = Arc::new(AtomicBool::new(false));
        if self.until_line {
            let stopped = stopped.clone();
            std::thread::spawn(move || {
                let _ = std::io::stdin().lock().read_line(&mut String::new());
                stopped.store(true, Ordering::Relaxed);
            });
        }
        move || !stopped.load(Ordering::Relaxed) && Instant::now() < end
    }
}

fn main() -> anyhow::Result<()> {
    let ms = Duration::from_millis;
    match Arguments::parse().command {
        Command::Connect { timeout_ms, targets } => {
            probe::connect_all(&targets, ms(timeout_ms)).iter().for_each(print);
        }
        Command::Resolve { targets } => targets.iter().for_each(|target| {
            print(&serde_json::json!({"target": target, "address": probe::resolve(target).ok().map(|found| found.ip())}));
        }),
        Command::Hold { target, interval_ms, patience_ms, until } => {
            let connected = || print(&serde_json::json!({"connected": target}));
            print(&probe::hold(&target, ms(interval_ms), ms(patience_ms), connected, until.watcher()));
        }
        Command::Bulk { target, seconds } => print(&probe::bulk(&target, Duration::from_secs(seconds))),
        Command::Watch { target, interval_ms, timeout_ms, until } => {
            probe::watch(&target, ms(interval_ms), ms(timeout_ms), |change| print(&change), until.watcher());
        }
        Command::Race { pattern, first, count, port, concurrency, timeout_ms, families } => {
            let race = Race { pattern, first, count, port, concurrency, timeout: ms(timeout_ms), families };
            print(&probe::race(&race)?);
        }
        Command::Load { allowed, denied, rate, seconds } => {
            print(&probe::load(&Load { allowed, denied, rate, time: Duration::from_secs(seconds) }));
        }
        Command::Attached { cgroup } => print(&probe::attached(&cgroup)?),
        Command::Serve { tcp, udp } => tokio::runtime::Runtime::new()?.block_on(serve(&tcp, &udp))?,
    }
    Ok(())
}

async fn serve(tcp: &[u16], udp: &[u16]) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    tcp.iter().try_for_each(|port| world::serve_tcp(*port))?;
    udp.iter().try_for_each(|port| world::serve_udp(*port))?;
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

/// One line, at once: whoever reads it may be waiting.
fn print(value: &impl Serialize) {
    let line = serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
