//! The ways to limit what a pod sends.

use std::process::Command;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};
use l7egg_ebpf_common::abi::{ABI_VERSION, Cap as KernelCap};
use l7egg_node_agent::datapath::Datapath;
use l7egg_node_agent::shaping::{Cap, CapName};

use crate::netns::run;
use crate::pod::Pod;
use crate::protect::Protection;

/// Those that are compared, in the order in which they are measured.
pub const LIMITERS: [Limiter; 4] = [Limiter::L7egg, Limiter::PlainEdt, Limiter::Tbf, Limiter::Htb];
/// How long tbf lets packets wait.
const TBF_LATENCY: &str = "25ms";
/// How long departure times as others give them let packets wait, in ns.
const PLAIN_HORIZON_NS: u64 = 2_000_000_000;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limiter {
    /// l7egg, as its agent sets it up.
    L7egg,
    /// The same program without what l7egg adds: one clock, and packets as large as they come.
    PlainEdt,
    /// tc-tbf(8).
    Tbf,
    /// tc-htb(8).
    Htb,
}

impl Limiter {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::L7egg => "l7egg",
            Self::PlainEdt => "plain_edt",
            Self::Tbf => "tbf",
            Self::Htb => "htb",
        }
    }

    /// Limits the pod to so many bits per second.
    pub fn set(self, pod: &Pod, rate: u64, protection: &mut Protection) -> Result<()> {
        // A tick of the kernel's clock, at 250 Hz, and two frames at least.
        let burst = (rate / 8 / 250).max(3028);
        match self {
            Self::L7egg => shape(pod, rate, protection),
            Self::PlainEdt => {
                shape(pod, rate, protection)?;
                make_plain(protection)?;
                pod.ns().ip("link set eth0 gso_max_segs 65535")
            }
            Self::Tbf => tc(
                pod,
                &format!("qdisc add dev eth0 root tbf rate {rate}bit burst {burst} latency {TBF_LATENCY}"),
            ),
            Self::Htb => {
                tc(pod, "qdisc add dev eth0 root handle 1: htb default 1")?;
                tc(pod, &format!("class add dev eth0 parent 1: classid 1:1 htb rate {rate}bit burst {burst}"))
            }
        }
    }

    /// Takes the limit off.
    pub fn unset(self, pod: &Pod, protection: &mut Protection) -> Result<()> {
        match self {
            Self::L7egg | Self::PlainEdt => Ok(protection.kernel.unshape(pod.uid(), Some(pod.cgroup()))?),
            Self::Tbf | Self::Htb => tc(pod, "qdisc del dev eth0 root"),
        }
    }
}

fn shape(pod: &Pod, rate: u64, protection: &mut Protection) -> Result<()> {
    let cap = Cap { name: CapName::Pod { uid: pod.uid().into() }, bits_per_second: rate, burst: None };
    protection.kernel.shape(pod.uid(), pod.cgroup(), &[cap]).context("shaping the pod")
}

fn make_plain(protection: &Protection) -> Result<()> {
    let pin = protection.bpffs().join(format!("l7egg/v{ABI_VERSION}/maps/CAPS"));
    let mut caps: Array<MapData, KernelCap> = Map::from_map_data(MapData::from_pin(pin)?)?.try_into()?;
    for id in 1..16 {
        let cap = caps.get(&id, 0)?;
        let plain =
            KernelCap { horizon_ns: PLAIN_HORIZON_NS, mark_ns: PLAIN_HORIZON_NS, sparse_burst_ns: 0, ..cap };
        caps.set(id, plain, 0)?;
    }
    Ok(())
}

fn tc(pod: &Pod, words: &str) -> Result<()> {
    run(Command::new("tc").args(["-n", pod.ns().name()]).args(words.split(' ')))
}
