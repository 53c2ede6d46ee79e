//! `cargo xtask bench`: measurements against nothing and against the usual alternatives.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::process::{command, step};
use crate::setup::{self, Part};
use crate::{build, vm, workspace};

/// The benches by name, and what each measures.
const BENCHES: [(&str, &str); 5] = [
    ("dns", "from a name to a connection: unfiltered, l7egg, and dnsmasq with a set of nftables"),
    ("packet", "nanoseconds of the egress program for a packet, with 10, 1,000 and 100,000 rules"),
    (
        "shaping",
        "bandwidth limits, in a VM with Linux 6.1: l7egg, plain departure times, tbf, htb (some 12 minutes)",
    ),
    (
        "subjects",
        "the same as traffic for containers of divided pods, and beside a node's firewall and a strict agent",
    ),
    ("traffic", "round trips and Gbit/s over veth: unfiltered, l7egg, and a set of nftables"),
];

/// The kernel for benches that run in a VM.
const KERNEL: &str = "6.1";

/// Which bench to run.
#[derive(Args)]
#[command(after_help = "\
Each compares in one run, by turns, and says which of its targets are met. Numbers mean something on a quiet
machine only: the load at the beginning is printed with them. Needs root.

Examples:
  cargo xtask bench                    what there is
  cargo xtask bench packet
  cargo xtask bench dns --json --check
  cargo xtask bench shaping --only l7egg_10_")]
pub struct BenchArgs {
    /// A bench; without any, list them
    name: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Fail if a target is missed
    #[arg(long)]
    check: bool,
    /// Of shaping, only the rows (variant_rate_flows) with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Runs `cargo xtask bench`.
pub fn run(args: &BenchArgs) -> Result<()> {
    let Some(name) = &args.name else {
        for (name, what) in BENCHES {
            println!("{name:<10} {what}");
        }
        return Ok(());
    };
    if !BENCHES.iter().any(|(known, _)| known == name) {
        bail!("there is no bench {name}; cargo xtask bench lists those that there are");
    }
    setup::ensure(&[Part::Ebpf, Part::Bench])?;
    build::all()?;
    let mut bench =
        if name == "shaping" { in_vm()? } else { command(workspace::binary("bench"), [] as [&str; 0]) };
    bench.arg(name);
    bench.args(args.json.then_some("--json")).args(args.check.then_some("--check"));
    if let Some(only) = &args.only {
        bench.arg("--only").arg(only);
    }
    step(format!("bench {name}"), bench).limit(2400).run()
}

/// The program in a VM: this machine's kernel may have no `fq`.
fn in_vm() -> Result<Command> {
    setup::ensure(&[Part::Vm])?;
    vm::fetch(KERNEL)?;
    let mut vm = vm::vmrun_parallel(KERNEL, 2300);
    // Its processors, emulated, come late to what veth pairs pass on: that is not to be loss on the wire.
    let wide = "echo 30000 > /proc/sys/net/core/netdev_max_backlog && exec \"$@\"";
    vm.args(["--", "sh", "-c", wide, "sh"]).arg(workspace::binary("bench"));
    Ok(vm)
}
