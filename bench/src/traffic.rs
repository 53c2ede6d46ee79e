//! `bench traffic`: round trips and throughput of connections that are open, over a veth pair.
//!
//! Three pods: one without any filter, one that l7egg protects, and one whose own packets pass a set of nftables
//! on their way out. Both filters know the same 1,000 networks and two ports.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use l7egg_crds::PolicySpec;

use crate::load::{DNS, ECHO_PORT, SINK_PORT};
use crate::peer::nft;
use crate::pod::{Pod, Talker, World};
use crate::protect::{Protection, policy};
use crate::report::Report;
use crate::sample::{ORDERS, median};

/// How often every variant gets new processes and connections, and its turns with each. Where their memory happens to lie, and
/// which hashes they happen to have, makes more of a difference than the filters.
const ROUNDS: usize = 8;
const TURNS: usize = 18;
const MILLISECONDS: u64 = 100;
/// Networks that are allowed.
const NETWORKS: u32 = 1000;
/// The servers' address, in the last of them.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 80);

const METHOD: &str = "One open connection for each variant and kind, in turns of 0.1 s and in every order, by new processes every 18 turns. \
A round trip is one byte there and back. The ratios are medians over the turns, so that what else the machine does falls out.";

/// Runs it.
pub fn run() -> Result<Report> {
    let mut report = Report::new("traffic", METHOD);
    let world = World::start()?;
    let names = ["unfiltered", "l7egg", "nft_set"];
    let pods =
        [world.pod(0, names[0], false)?, world.pod(1, names[1], false)?, world.pod(2, names[2], false)?];
    let _protection = Protection::of(&pods[1], &policy(&[egg()?], &[])?)?;
    nft(pods[2].ns(), &rules())?;

    let mut rates = [const { Vec::new() }; 3];
    let mut streams = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        let mut talkers = talkers(&pods, &names)?;
        for turn in 0..TURNS {
            for index in ORDERS[turn % ORDERS.len()] {
                rates[index].push(measure(&mut talkers[index], "echo", MILLISECONDS)?);
                streams[index].push(measure(&mut talkers[index], "stream", MILLISECONDS)? * 8.0 / 1e9);
            }
        }
        eprintln!("bench: traffic: {} of {ROUNDS} rounds", round + 1);
    }
    for (index, name) in names.into_iter().enumerate() {
        report.variant(
            name,
            vec![
                ("tcp_rr_per_s", median(&rates[index]).round()),
                ("gbit_per_s", median(&streams[index])),
                ("tcp_rr_ratio", thousandths(ratio(&rates[index], &rates[0]))),
                ("gbit_ratio", thousandths(ratio(&streams[index], &streams[0]))),
            ],
        );
    }
    for (what, all) in [("TCP_RR", &rates), ("throughput", &streams)] {
        let share = ratio(&all[1], &all[0]);
        report.target(
            format!("l7egg's {what} at least 0.98 of unfiltered"),
            format!("{share:.3}"),
            share >= 0.98,
        );
        let ahead = ratio(&all[1], &all[2]);
        report.target(
            format!("l7egg's {what} ahead of the nft set"),
            format!("{ahead:.3} of it"),
            ahead > 1.0,
        );
    }
    Ok(report)
}

/// New clients, of which only the first may reach what no rule allows; with their connections.
fn talkers(pods: &[Pod], names: &[&str]) -> Result<Vec<Talker>> {
    let talkers = pods.iter().zip(names).enumerate().map(|(index, (pod, name))| {
        let mut talker = pod.talker(DNS, SERVER)?;
        let open = talker.reaches_unnamed()?;
        ensure!(open == (index == 0), "{name}: what is not allowed is {open}");
        measure(&mut talker, "echo", MILLISECONDS)?;
        measure(&mut talker, "stream", MILLISECONDS)?;
        Ok(talker)
    });
    talkers.collect()
}

/// So many a second.
pub fn measure(talker: &mut Talker, kind: &str, milliseconds: u64) -> Result<f64> {
    let count: u64 = talker.ask(&format!("{kind} {milliseconds}"))?.parse().context("the client's count")?;
    Ok(count as f64 * 1e3 / milliseconds as f64)
}

/// The middle of the ratios of every turn.
pub fn ratio(ones: &[f64], others: &[f64]) -> f64 {
    median(&ones.iter().zip(others).map(|(one, other)| one / other).collect::<Vec<_>>())
}

/// Rounded.
pub fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Networks of 256 addresses, the servers' own at the end.
fn networks() -> impl Iterator<Item = String> {
    let others =
        (0..NETWORKS - 1).map(|index| Ipv4Addr::from(u32::from(Ipv4Addr::new(20, 0, 0, 0)) + (index << 9)));
    others.chain([Ipv4Addr::new(198, 18, 0, 0)]).map(|address| format!("{address}/24"))
}

/// An Egg with all those networks and two ports.
pub fn egg() -> Result<PolicySpec> {
    let to = networks().map(|network| format!("{{cidr: {network}}}")).collect::<Vec<_>>().join(", ");
    let yaml = format!(
        "egress: [{{to: [{to}], ports: [{{protocol: TCP, port: {ECHO_PORT}, endPort: {SINK_PORT}}}]}}]"
    );
    serde_yaml::from_str(&yaml).context("the policy")
}

fn rules() -> String {
    let elements = networks().collect::<Vec<_>>().join(", ");
    format!(
        "
table inet bench {{
    set allowed {{ type ipv4_addr; flags interval; elements = {{ {elements} }}; }}
    chain output {{
        type filter hook output priority filter; policy drop;
        oifname lo accept
        ip daddr @allowed tcp dport {ECHO_PORT}-{SINK_PORT} accept
    }}
}}
"
    )
}
