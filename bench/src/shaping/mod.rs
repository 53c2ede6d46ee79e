//! `bench shaping`: how exact a bandwidth limit is, and what the pod's other traffic feels of it.
//!
//! One pod and the world, over veth; bulk TCP from the pod, with a ping beside it. Each variant limits the
//! same interface in its way: l7egg; departure times as others give them (no way past the queue, packets of any
//! size); and tc's `tbf` and `htb`.

mod bulk;
mod limiter;

use std::time::Duration;

use anyhow::{Context, Result};

use self::bulk::Bulk;
use self::limiter::{LIMITERS, Limiter};
use crate::netns::{Netns, run as run_command};
use crate::pod::World;
use crate::protect::Protection;
use crate::report::Report;

const MEGABIT: u64 = 1_000_000;
/// Rates besides the largest.
const RATES: [u64; 3] = [MEGABIT, 10 * MEGABIT, 100 * MEGABIT];
const FLOWS: [usize; 3] = [1, 4, 16];
const TIME: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
/// Of what the machine can drive without a limit, in percent.
const LARGEST: u64 = 60;

const METHOD: &str = "Ten seconds each. Rates are bytes on the wire (payload and the headers of full frames) that arrived, over the limit. \
Added times are round trips of a ping, ten a second, beside the bulk, less the median before it. A row is variant_rate_flows; rates in Mbit/s.";

/// Runs it; only rows with `only` in their name, if that is said.
pub fn run(only: Option<&str>) -> Result<Report> {
    let mut report = Report::new("shaping", METHOD);
    let world = World::start()?;
    let pod = world.pod(0, "shaped", false)?;
    let _process = pod.idle()?;
    for ns in [pod.ns(), world.ns()] {
        keep_order(ns)?;
    }
    let mut protection = Protection::load()?;
    let free = Bulk::run(&pod, 4, Duration::from_secs(3))?.rate(SECOND, 3 * SECOND);
    let largest = (free as u64 * LARGEST / 100 / MEGABIT).max(101) * MEGABIT;
    eprintln!("bench: shaping: {:.0} Mbit/s without a limit", free / MEGABIT as f64);
    for rate in RATES.into_iter().chain([largest]) {
        for flows in FLOWS {
            for limiter in LIMITERS {
                let name = format!("{}_{}_{flows}", limiter.name(), rate / MEGABIT);
                if only.is_some_and(|only| !name.contains(only)) {
                    continue;
                }
                limiter.set(&pod, rate, &mut protection).with_context(|| limiter.name())?;
                let row = measure(&pod, rate, flows);
                limiter.unset(&pod, &mut protection)?;
                let figures = row?;
                eprintln!("bench: shaping: {name} {figures:?}");
                if limiter == Limiter::L7egg {
                    targets(&mut report, rate / MEGABIT, flows, &figures);
                }
                if limiter == Limiter::Tbf {
                    retransmit_target(&mut report, rate / MEGABIT, flows, &figures);
                }
                report.variant(name, figures);
            }
        }
    }
    Ok(report)
}

/// A veth pair hands packets to the processor that sent them: those of one connection, sent by two, change places,
/// the more the less the processors are real. All go to the first, as on a wire.
fn keep_order(ns: &Netns) -> Result<()> {
    let script = "for queue in /sys/class/net/*/queues/rx-*/rps_cpus; do echo 1 > $queue; done";
    run_command(ns.command("sh".as_ref()).args(["-c", script]))
}

fn measure(pod: &crate::pod::Pod, rate: u64, flows: usize) -> Result<Vec<(&'static str, f64)>> {
    let idle = bulk::percentile(&bulk::ping(pod, SECOND)?, 50);
    let bulk = Bulk::run(pod, flows, TIME)?;
    let part = |from, to| thousandths(bulk.rate(from, to) / rate as f64);
    let added = |percent| thousandths(bulk::percentile(&bulk.pings, percent) - idle);
    Ok(vec![
        ("achieved_ratio", part(Duration::ZERO, TIME)),
        ("first_second_ratio", part(Duration::ZERO, SECOND)),
        ("added_p50_ms", added(50)),
        ("added_p99_ms", added(99)),
        ("retransmits", bulk.retransmits as f64),
        ("jain", thousandths(bulk.jain())),
    ])
}

fn targets(report: &mut Report, rate: u64, flows: usize, figures: &[(&'static str, f64)]) {
    let row = format!("{rate} Mbit/s, {flows} flows");
    let mut target = |what: &str, figure: &str, within: &dyn Fn(f64) -> bool| {
        let found = value(figures, figure);
        report.target(format!("{row}: {what}"), found.to_string(), within(found));
    };
    target("achieved 0.97 to 1.00", "achieved_ratio", &|ratio| (0.97..=1.004).contains(&ratio));
    target("first second at most 1.05", "first_second_ratio", &|ratio| ratio <= 1.05);
    target("Jain's index at least 0.95", "jain", &|jain| jain >= 0.95);
    if rate == 10 && flows == 4 {
        target("added p99 at most 5 ms", "added_p99_ms", &|added| added <= 5.0);
    }
}

/// `figures` are tbf's; l7egg's of the same row are in the report.
fn retransmit_target(report: &mut Report, rate: u64, flows: usize, figures: &[(&'static str, f64)]) {
    let row = format!("l7egg_{rate}_{flows}");
    let Some(ours) = report.variants.iter().find(|variant| variant.name == row) else { return };
    let (ours, tbf) = (value(&ours.figures, "retransmits"), value(figures, "retransmits"));
    report.target(
        format!("{rate} Mbit/s, {flows} flows: retransmits at most a tenth of tbf's"),
        format!("{ours} beside {tbf}"),
        ours * 10.0 <= tbf || ours == 0.0,
    );
}

fn value(figures: &[(&'static str, f64)], name: &str) -> f64 {
    figures.iter().find(|(known, _)| *known == name).map_or(f64::NAN, |(_, value)| *value)
}

fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
