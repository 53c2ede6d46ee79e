//! The resolvers, as Debian 12 has them, each with the whole of the zone `test`.
//!
//! - knot and bind serve the zone themselves; bind as a resolver that has it locally, knot is authoritative only.
//! - unbound resolves: it asks a knot, with the letters' case mixed, and follows aliases itself.
//! - dnsmasq answers addresses and aliases itself and forwards all else to a knot.

mod bind;
mod daemon;
mod dnsmasq;
mod knot;
mod unbound;

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::environment::SERVER;
use crate::harness::Pod;
use crate::programs::Programs;
use daemon::Daemon;

/// Where the knot is that unbound and dnsmasq ask.
const UPSTREAM: &str = "198.18.0.60";

/// A resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// Unbound.
    Unbound,
    /// dnsmasq.
    Dnsmasq,
    /// Knot DNS.
    Knot,
    /// BIND.
    Bind,
}

impl Resolver {
    /// In the order of the table.
    pub const ALL: [Self; 4] = [Self::Unbound, Self::Dnsmasq, Self::Knot, Self::Bind];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unbound => "unbound",
            Self::Dnsmasq => "dnsmasq",
            Self::Knot => "knot",
            Self::Bind => "bind9",
        }
    }
}

/// What runs beside a pod; ends when dropped.
pub struct Servers {
    _daemons: Vec<Daemon>,
    _folder: TempDir,
}

impl Servers {
    /// Starts the resolver with these records and waits until it answers.
    pub fn start(resolver: Resolver, programs: &Programs, pod: &Pod, records: &[String]) -> Self {
        for address in SERVER.iter().chain([&UPSTREAM]) {
            let added = pod.in_world("ip".as_ref()).args(["address", "add", address, "dev", "lo"]).status();
            assert!(added.expect("iproute2").success(), "{address}");
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let zone = folder.path().join("zone");
        std::fs::write(&zone, zone_file(records)).expect("the zone");
        let start = |program, arguments: &[&str], settings: String| {
            Daemon::start(programs, pod, folder.path(), program, arguments, &settings)
        };
        let knot = |addresses: &[&str], folder: &Path| {
            start("knotd", &["-c"], knot::settings(addresses, folder, &zone))
        };
        let daemons = match resolver {
            Resolver::Knot => vec![knot(&SERVER, folder.path())],
            Resolver::Bind => vec![start("named", &["-g", "-c"], bind::settings(folder.path(), &zone))],
            Resolver::Unbound => {
                let unbound = unbound::settings(folder.path());
                vec![knot(&[UPSTREAM], folder.path()), start("unbound", &["-d", "-c"], unbound)]
            }
            Resolver::Dnsmasq => {
                let dnsmasq = dnsmasq::settings(records);
                vec![knot(&[UPSTREAM], folder.path()), start("dnsmasq", &["-k", "-C"], dnsmasq)]
            }
        };
        wait(programs, pod, &daemons);
        Self { _daemons: daemons, _folder: folder }
    }
}

fn zone_file(records: &[String]) -> String {
    let head = [
        "test. 30 IN SOA ns.test. nobody.test. 1 60 60 60 1",
        "test. 30 IN NS ns.test.",
        "ns.test. 30 IN A 198.18.0.60",
    ];
    let lines = head.iter().copied().chain(records.iter().map(String::as_str));
    lines.fold(String::new(), |file, line| file + line + "\n")
}

fn wait(programs: &Programs, pod: &Pod, daemons: &[Daemon]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let dig = |server: &&str| {
        let mut dig = pod.in_world(&programs.installed("dig"));
        let server = format!("@{server}");
        let output = dig.args(["+short", "+tries=1", "+time=1", &server, "ns.test"]).output().expect("dig");
        output.stdout == b"198.18.0.60\n"
    };
    while !SERVER.iter().all(dig) {
        let logs: Vec<_> = daemons.iter().map(Daemon::log).collect();
        assert!(Instant::now() < deadline, "the resolver does not answer:\n{}", logs.join("\n"));
        std::thread::sleep(Duration::from_millis(100));
    }
}
