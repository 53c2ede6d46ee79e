//! `cargo xtask test` and `cargo xtask e2e`: the tests of every tier, and one table of what became of them.

mod binaries;
mod cluster_tiers;
mod conformance_tier;
mod fuzz_tier;
mod kernel_tier;
mod libtest;
mod one_node_tier;
mod report;
mod runner;
mod suites;
mod unit_tier;
mod vm_jobs;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::cluster::LocalCluster;
use crate::kubernetes::Kubernetes;
use crate::setup::{self, Part};
use crate::workspace::absolute;
use crate::{build, cluster};
use report::{Report, Row};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// The crates' own tests, without privileges
    Unit,
    /// Random inputs for everything that reads what others wrote, a minute for each target
    Fuzz,
    /// The kernel programs on this machine's kernel, and in VMs on Debian's
    Kernel,
    /// DNS with real clients and real resolvers: a table of what works
    Conformance,
    /// Every way out of a pod that we know, tried by an attacker inside
    Adversary,
    /// Traffic while agent and operator are killed and the policy changes every second, on a real API server
    Chaos,
    /// The operator on a real API server
    Operator,
    /// The product on a real cluster
    E2e,
    /// Bandwidth limits on a real kubelet: on one more node, in a VM, whose kernel has the `fq` that this one may lack
    OneNode,
    /// All of them
    All,
}

/// Which tests to run.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test unit
  cargo xtask test conformance
  cargo xtask test kernel --kernels 6.12 -- fresh_names        only tests with this in their name
  cargo xtask test adversary --kernels -- frames::             only ways of this family, on this kernel
  cargo xtask cluster up; cargo xtask test e2e --dir /tmp/l7egg-cluster

A test that cannot run prints a line `skipped: REASON` and returns; it is counted and listed as skipped.
The whole output of each tier is in target/xtask-logs.")]
pub struct TestArgs {
    /// Which tiers
    #[arg(value_enum, default_values = ["all"])]
    tiers: Vec<Tier>,
    /// Debian kernels on which all kernel tests, or ways of an adversary, run besides this machine's; without a value, none. Where this
    /// is not said: kernel tests on 6.1, and on 6.12 those that depend most on the kernel; an adversary that is asked for by name on both
    #[arg(long, value_delimiter = ',', num_args = 0..=1)]
    kernels: Option<Vec<String>>,
    /// Try the kernel tier on 5.10, 6.18 and the newest too; these do not decide the result
    #[arg(long)]
    all_kernels: bool,
    /// Use the cluster in this directory and leave it running, instead of one for this run alone
    #[arg(long, value_parser = absolute)]
    dir: Option<PathBuf>,
    /// For the test programs: a part of the tests' names, or other options of libtest
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Where to run the e2e tests.
#[derive(Args)]
pub struct E2eArgs {
    /// The cluster, whose nodes must have our images (see e2e/kind); without it, one on this machine
    #[arg(long, value_parser = absolute)]
    kubeconfig: Option<PathBuf>,
    /// Use the local cluster in this directory and leave it running
    #[arg(long, conflicts_with = "kubeconfig", value_parser = absolute)]
    dir: Option<PathBuf>,
    /// For the test programs: a part of the tests' names, or other options of libtest
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Runs `cargo xtask test`. An error if a test failed or a tier could not run.
pub fn run(args: &TestArgs) -> Result<()> {
    let wanted = |tier| args.tiers.contains(&tier) || args.tiers.contains(&Tier::All);
    let on_cluster = [Tier::Chaos, Tier::Operator, Tier::E2e, Tier::OneNode].into_iter().any(wanted);
    setup::ensure(&Part::ALL)?;
    if on_cluster && args.dir.is_none() {
        cluster::build_kubernetes_beside(build::all_and_tests)?;
    } else {
        build::all_and_tests()?;
    }

    let mut report = Report::new(args.filter.is_empty());
    if wanted(Tier::Unit) {
        report.add(unit_tier::run(&args.filter));
    }
    if wanted(Tier::Fuzz) && args.filter.is_empty() {
        report.add(fuzz_tier::run());
    }
    if wanted(Tier::Kernel) {
        kernel_tier::run(&mut report, args.kernels.as_deref(), args.all_kernels, &args.filter);
    }
    if wanted(Tier::Conformance) {
        report.add(conformance_tier::run(&args.filter));
    }
    if wanted(Tier::Adversary) {
        // In VMs it takes an hour: only where it is asked for by name.
        let both = || ["6.1", "6.12"].map(str::to_owned).to_vec();
        let is_named = args.tiers.contains(&Tier::Adversary);
        let kernels = if is_named { args.kernels.clone().unwrap_or_else(both) } else { Vec::new() };
        suites::run(&mut report, "adversary", &kernels, &args.filter);
    }
    if on_cluster && let Err(error) = run_on_cluster(&mut report, args, &wanted) {
        report.add(Row::unable("cluster", &error));
    }
    finish(&report)
}

/// Runs `cargo xtask e2e`.
pub fn run_e2e(args: &E2eArgs) -> Result<()> {
    build::all_and_tests()?;
    let kubernetes = match &args.kubeconfig {
        Some(path) => Kubernetes::Kubeconfig(path.clone()),
        None => Kubernetes::Local(local_cluster(args.dir.as_deref())?),
    };
    let mut report = Report::new(args.filter.is_empty());
    cluster_tiers::e2e(&mut report, &kubernetes, &args.filter);
    drop(kubernetes);
    finish(&report)
}

fn run_on_cluster(report: &mut Report, args: &TestArgs, wanted: &dyn Fn(Tier) -> bool) -> Result<()> {
    let kubernetes = Kubernetes::Local(local_cluster(args.dir.as_deref())?);
    if wanted(Tier::Operator) {
        report.add(cluster_tiers::operator(&kubernetes, &args.filter));
    }
    // Before the product is installed: it brings its own operator.
    if wanted(Tier::Chaos) && args.filter.is_empty() {
        report.add(cluster_tiers::chaos(&kubernetes));
    }
    if wanted(Tier::E2e) {
        cluster_tiers::e2e(report, &kubernetes, &args.filter);
    }
    // The last one: others use all nodes that there are.
    if wanted(Tier::OneNode) && args.filter.is_empty() {
        report.add(one_node_tier::run(&kubernetes));
    }
    Ok(())
}

fn local_cluster(dir: Option<&std::path::Path>) -> Result<LocalCluster> {
    dir.map_or_else(LocalCluster::own, |dir| Ok(LocalCluster::running(dir)))
}

fn finish(report: &Report) -> Result<()> {
    print!("{report}");
    if report.is_empty() {
        bail!("no test ran: does any have that in its name?");
    }
    match report.failed() {
        0 => Ok(()),
        1 => bail!("1 failure"),
        failed => bail!("{failed} failures"),
    }
}
