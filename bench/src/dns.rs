//! `bench dns`: how long it takes from a name to a connection.
//!
//! Three pods, each behind a router of its own, ask the same DNS server for fresh names and connect to their
//! addresses: one without any filter, one that l7egg protects, and one whose router runs dnsmasq, which forwards
//! the question and adds the addresses of the answer to a set of nftables that the router lets through.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l7egg_crds::PolicySpec;

use crate::load::{Answer, CONNECT_PORT, DNS, DOMAIN, NAMES};
use crate::peer::Proxy;
use crate::pod::{Pod, Talker, World};
use crate::protect::{Protection, policy};
use crate::report::Report;
use crate::sample::{ORDERS, percentile};

/// Cycles of each variant, and of each turn.
const CYCLES: u32 = 10_000;
const BLOCK: u32 = 20;
/// Cycles that are not counted, before.
const WARM_UP: u32 = 500;

const METHOD: &str = "A cycle: a new UDP socket, the questions for A and AAAA as glibc asks them, both answers, a TCP connection; by one \
process for each variant, in turns of 20 cycles and in every order. Clients are on one processor, the servers on another; dnsmasq is where it \
likes. No resolver library: it would add the same to all.";

/// Runs it.
pub fn run() -> Result<Report> {
    let mut report = Report::new("dns", METHOD);
    let world = World::start()?;
    let [plain, protected, proxied] =
        [(0, "unfiltered"), (1, "l7egg"), (2, "proxy")].map(|(number, name)| world.pod(number, name, true));
    let (plain, protected, proxied) = (plain?, protected?, proxied?);

    let _protection = Protection::of(&protected, &policy(&[egg()?], &[DNS])?)?;
    let resolver = proxied.gateway(2);
    let _proxy = Proxy::start(proxied.node()?, resolver)?;

    let mut variants = vec![
        Variant::new("unfiltered", &plain, DNS)?,
        Variant::new("l7egg", &protected, DNS)?,
        Variant::new("proxy", &proxied, resolver)?,
    ];
    check(&mut variants)?;
    for variant in &mut variants {
        variant.cycles(NAMES - WARM_UP, WARM_UP)?;
        variant.sample.clear();
        variant.failures = 0;
    }
    let mut said = Instant::now();
    for turn in 0..CYCLES / BLOCK {
        for index in ORDERS[turn as usize % ORDERS.len()] {
            variants[index].cycles(turn * BLOCK, BLOCK)?;
        }
        if said.elapsed() > Duration::from_secs(5) {
            eprintln!("bench: dns: {} of {CYCLES} cycles", turn * BLOCK);
            said = Instant::now();
        }
    }
    check(&mut variants)?;
    judge(&mut report, &mut variants);
    Ok(report)
}

struct Variant {
    name: &'static str,
    talker: Talker,
    sample: Vec<u64>,
    failures: u32,
}

impl Variant {
    fn new(name: &'static str, pod: &Pod, resolver: Ipv4Addr) -> Result<Self> {
        let talker = pod.talker(resolver, DNS)?;
        Ok(Self { name, talker, sample: Vec::new(), failures: 0 })
    }

    fn cycles(&mut self, first: u32, count: u32) -> Result<()> {
        let answer = self.talker.ask(&format!("cycles {first} {count}"))?;
        let answer: Answer = serde_json::from_str(&answer).context("the client's answer")?;
        self.sample.extend(answer.nanoseconds);
        self.failures += answer.failures;
        Ok(())
    }
}

/// Nothing is measured that does not filter.
fn check(variants: &mut [Variant]) -> Result<()> {
    for variant in variants {
        let open = variant.talker.reaches_unnamed()?;
        ensure!(
            open == (variant.name == "unfiltered"),
            "{}: an address that no name has is {}",
            variant.name,
            if open { "reached" } else { "not reached" }
        );
    }
    Ok(())
}

fn egg() -> Result<PolicySpec> {
    let yaml = format!(
        "egress: [{{to: [{{domainNames: ['**.{DOMAIN}']}}], ports: [{{protocol: TCP, port: {CONNECT_PORT}}}]}}]"
    );
    serde_yaml::from_str(&yaml).context("the policy")
}

fn judge(report: &mut Report, variants: &mut [Variant]) {
    let mut of = |percent| -> Vec<f64> {
        variants.iter_mut().map(|variant| percentile(&mut variant.sample, percent) as f64 / 1e3).collect()
    };
    let (p50, p99) = (of(50), of(99));
    for (index, variant) in variants.iter().enumerate() {
        report.variant(
            variant.name,
            vec![
                ("cycles", variant.sample.len() as f64),
                ("p50_us", p50[index]),
                ("p99_us", p99[index]),
                ("first_connect_failures", f64::from(variant.failures)),
            ],
        );
    }
    for (name, values) in [("p50", &p50), ("p99", &p99)] {
        let added = values[1] - values[0];
        report.target(
            format!("l7egg's {name} within 3 % or 10 µs of unfiltered"),
            format!("{added:+.1} µs ({:+.1} %)", added / values[0] * 100.0),
            added <= (values[0] * 0.03).max(10.0),
        );
    }
    let failures = variants[1].failures;
    report.target("no first connection of l7egg's fails", format!("{failures} failed"), failures == 0);
    let times = p50[2] / p50[1];
    report.target(
        "the proxy takes at least 3 times as long",
        format!("{times:.1} times (p50)"),
        times >= 3.0,
    );
}
