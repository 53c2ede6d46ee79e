//! `bench packet`: what the egress program costs for one packet (`BPF_PROG_TEST_RUN`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{Program, TestRun, TestRunOptions};
use l7egg_crds::{Destination, EgressRule, PolicySpec, Port, Protocol};
use l7egg_node_agent::kernel::Kernel;

use crate::netns::run as run_command;
use crate::nothing::Nothing;
use crate::protect::{Protection, policy};
use crate::report::Report;
use crate::sample::percentile;

/// Numbers of rules: networks that are allowed, half of them of each family.
const RULES: [usize; 3] = [10, 1_000, 100_000];
/// Packets of one connection in one run, and runs.
const REPEAT: u32 = 500_000;
const RUNS: usize = 20;
/// First packets, each of a connection of its own.
const FIRSTS: usize = 20_000;
/// Offset of `ifindex` in `struct __sk_buff`, include/uapi/linux/bpf.h.
const IFINDEX: usize = 40;
const PORT: u16 = 443;

const METHOD: &str = "BPF_PROG_TEST_RUN on the loaded egress program, whose packets have a socket (the kernel makes one for each run) with \
storage. established: 500,000 TCP packets of one connection in a run, the fastest of 20 runs, which others disturb least. udp: the same for a flow. least: the same for a packet that the program lets through at once, as over loopback. nothing: a program of two instructions, so what the test run itself takes. new: a SYN that is judged, \
allowed and remembered, one to a run, median of 20,000; the kernel's reading of its clock and cold caches are in it, and timer is what the \
least takes in such a run.";

/// Runs it.
pub fn run() -> Result<Report> {
    let mut report = Report::new("packet", METHOD);
    let context = context()?;
    let mut protection = Protection::load()?;
    let nothing = Nothing::load()?;
    let mut established = Vec::new();
    for rules in RULES {
        eprintln!("bench: packet: {rules} rules");
        let policy = policy(&eggs(rules), &[])?;
        protection.kernel.enforce_test_subject(&policy).context("enforcing the policy")?;
        let mut bench = Bench { kernel: &mut protection.kernel, nothing: &nothing, context: &context };
        for (family, to) in [
            ("ipv4", IpAddr::from(Ipv4Addr::new(20, 0, 0, 7))),
            ("ipv6", IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7))),
        ] {
            let figures = bench.figures(to)?;
            established.push((format!("{family}, {rules} rules"), family, rules, figures[0].1));
            report.variant(format!("{family}/{rules}"), figures);
        }
    }
    let worst = established.iter().map(|(.., ns)| *ns).fold(0.0, f64::max);
    report.target(
        "a packet of an open connection at most 40 ns",
        format!("{worst:.1} ns at most"),
        worst <= 40.0,
    );
    for family in ["ipv4", "ipv6"] {
        let at = |wanted| {
            established
                .iter()
                .find(|(_, f, rules, _)| *f == family && *rules == wanted)
                .map_or(0.0, |(.., ns)| *ns)
        };
        let times = at(RULES[2]) / at(RULES[0]);
        report.target(
            format!("{family}: 100,000 rules at most 1.1 times 10 rules"),
            format!("{times:.2} times"),
            times <= 1.1,
        );
    }
    Ok(report)
}

struct Bench<'a> {
    kernel: &'a mut Kernel,
    nothing: &'a Nothing,
    context: &'a [u8],
}

impl Bench<'_> {
    fn figures(&mut self, to: IpAddr) -> Result<Vec<(&'static str, f64)>> {
        let (data, syn) = (frame(to, 6, &tcp(0x10)), frame(to, 6, &tcp(0x02)));
        let udp = frame(to, 17, &udp());
        let no_context = vec![0; self.context.len()];
        self.check(to)?;
        Ok(vec![
            ("established_ns", self.many(&data, self.context)?),
            ("udp_ns", self.many(&udp, self.context)?),
            // As if over loopback: let through at once.
            ("least_ns", self.many(&data, &no_context)?),
            ("nothing_ns", self.nothing(&data)?),
            ("new_ns", self.firsts(&syn, self.context)?),
            ("timer_ns", self.firsts(&syn, &no_context)?),
        ])
    }

    /// Nothing is measured that does not filter.
    fn check(&mut self, to: IpAddr) -> Result<()> {
        let elsewhere = match to {
            IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 7).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 7).into(),
        };
        ensure!(self.once(&frame(to, 6, &tcp(0x02)), 1, self.context)?.0 == 1, "{to} is not allowed");
        ensure!(
            self.once(&frame(elsewhere, 6, &tcp(0x02)), 1, self.context)?.0 == 0,
            "{elsewhere} is allowed"
        );
        Ok(())
    }

    fn nothing(&self, frame: &[u8]) -> Result<f64> {
        let runs = (0..RUNS).map(|_| self.nothing.run(frame, self.context, REPEAT));
        Ok(runs.collect::<Result<Vec<_>>>()?.into_iter().min().unwrap_or(0) as f64)
    }

    fn many(&mut self, frame: &[u8], context: &[u8]) -> Result<f64> {
        let mut fastest = u64::MAX;
        for _ in 0..RUNS {
            fastest = fastest.min(self.once(frame, REPEAT, context)?.1);
        }
        Ok(fastest as f64)
    }

    fn firsts(&mut self, frame: &[u8], context: &[u8]) -> Result<f64> {
        let mut sample = Vec::with_capacity(FIRSTS);
        for _ in 0..FIRSTS {
            sample.push(self.once(frame, 1, context)?.1);
        }
        Ok(percentile(&mut sample, 50) as f64)
    }

    /// What the program returned, and how long it took for each packet, in ns.
    fn once(&mut self, frame: &[u8], repeat: u32, context: &[u8]) -> Result<(u32, u64)> {
        let Some(Program::CgroupSkb(program)) = self.kernel.program("egress") else {
            bail!("no egress program")
        };
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(context);
        options.repeat = repeat;
        let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
        Ok((result.return_value, result.duration.as_nanos() as u64))
    }
}

/// A context with a network interface that is not loopback, in a network namespace of this thread's own.
fn context() -> Result<Vec<u8>> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).context("benches need root")?;
    run_command(Command::new("ip").args(["link", "add", "eth0", "type", "veth", "peer", "name", "eth1"]))?;
    let index = nix::net::if_::if_nametoindex("eth0").context("eth0")?;
    let mut context = vec![0; 192];
    context[IFINDEX..IFINDEX + 4].copy_from_slice(&index.to_ne_bytes());
    Ok(context)
}

/// As many networks as there are to be rules, in as many Eggs as they need.
fn eggs(networks: usize) -> Vec<PolicySpec> {
    let all: Vec<Destination> = (0..networks)
        .map(|index| {
            let number = (index / 2) as u32;
            let cidr = if index % 2 == 0 {
                format!("{}/24", Ipv4Addr::from(u32::from(Ipv4Addr::new(20, 0, 0, 0)) + (number << 9)))
            } else {
                let [_, _, high, low] = number.to_be_bytes();
                format!("{}/48", Ipv6Addr::new(0x2001, 0xdb8, u16::from_be_bytes([high, low]), 0, 0, 0, 0, 0))
            };
            Destination { cidr: Some(cidr), ..Destination::default() }
        })
        .collect();
    let rules: Vec<EgressRule> = all
        .chunks(l7egg_policy::MAX_DESTINATIONS)
        .map(|to| EgressRule {
            to: to.to_vec(),
            ports: [Protocol::Tcp, Protocol::Udp]
                .map(|protocol| Port { protocol, port: Some(PORT.into()), end_port: None })
                .to_vec(),
            ..EgressRule::default()
        })
        .collect();
    rules
        .chunks(l7egg_policy::MAX_RULES)
        .map(|egress| PolicySpec { egress: egress.to_vec(), ..PolicySpec::default() })
        .collect()
}

fn frame(to: IpAddr, number: u8, transport: &[u8]) -> Vec<u8> {
    let mut frame = vec![0u8; 12];
    match to {
        IpAddr::V4(to) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + transport.len() as u16).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, number, 0, 0, 10, 77, 0, 2]);
            frame.extend(to.octets());
        }
        IpAddr::V6(to) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((transport.len() as u16).to_be_bytes());
            frame.extend([number, 64]);
            frame.extend(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2).octets());
            frame.extend(to.octets());
        }
    }
    frame.extend(transport);
    frame
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&40_000u16.to_be_bytes());
    segment[2..4].copy_from_slice(&PORT.to_be_bytes());
    segment[12..14].copy_from_slice(&[0x50, flags]);
    segment
}

fn udp() -> Vec<u8> {
    let mut datagram = vec![0; 28];
    datagram[..2].copy_from_slice(&40_000u16.to_be_bytes());
    datagram[2..4].copy_from_slice(&PORT.to_be_bytes());
    datagram[4..6].copy_from_slice(&28u16.to_be_bytes());
    datagram
}
