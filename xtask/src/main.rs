//! `cargo xtask`: every developer command of l7egg.

mod bench;
mod build;
mod cluster;
mod crds;
mod demo;
mod fuzz;
mod images;
mod kubernetes;
mod lint;
mod process;
mod setup;
mod test;
mod vm;
mod workspace;

use std::convert::Infallible;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, test and show l7egg. On a fresh Debian 12 with Rust every command installs what it needs.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "\
Examples:
  cargo xtask demo                 see it work: a cluster, pods, Eggs, a table
  cargo xtask test                 every test, on this kernel and on Debian's
  cargo xtask test kernel --kernels 6.12
  cargo xtask fuzz answer --seconds 600
  cargo xtask cluster up && cargo xtask cluster exec -- kubectl get nodes

What takes long is done once and kept in ~/.cache/l7egg (L7EGG_CACHE=DIR: elsewhere)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing (Debian 12), or say what is
    #[command(after_help = "\
Examples:
  cargo xtask setup                all that the other commands need, at once")]
    Setup,
    /// Build the kernel programs and the workspace
    #[command(after_help = "\
Examples:
  cargo xtask build                everything, in target/debug
  cargo xtask build --ebpf-only && cargo build --release -p l7egg-host")]
    Build(build::BuildArgs),
    /// Pack container images: of what `build` has built, or, optimised, for a registry
    #[command(after_help = "\
Examples:
  cargo xtask images --release     build and pack operator and node agent, for a registry
  skopeo copy oci-archive:target/images/release/l7egg-operator.tar docker://REGISTRY/l7egg-operator:TAG
  cargo xtask build && cargo xtask images
                                   what tests load into clusters, the test kit too")]
    Images(images::ImagesArgs),
    /// Run the tests: unit, fuzz, kernel, adversary, conformance, operator, chaos, e2e, one-node
    Test(test::TestArgs),
    /// Random inputs for everything that reads what others wrote
    Fuzz(fuzz::FuzzArgs),
    /// Show Eggs at work on a real Kubernetes
    #[command(after_help = "\
Examples:
  cargo xtask demo                 and take everything down again
  cargo xtask demo --keep && cargo xtask cluster exec -- kubectl get eggs -A")]
    Demo(demo::DemoArgs),
    /// Run the e2e tests against any cluster
    #[command(after_help = "\
Examples:
  cargo xtask e2e                                      on a cluster of its own
  cargo xtask e2e --kubeconfig ~/.kube/config          on that one, whose nodes have the images
  cargo xtask e2e --dir /tmp/l7egg-cluster -- names    only these tests, on one that `cluster up` started")]
    E2e(test::E2eArgs),
    /// A real Kubernetes on this machine
    Cluster(cluster::ClusterArgs),
    /// Run a command under a real Debian kernel
    Vm(vm::VmArgs),
    /// Measure
    Bench(bench::BenchArgs),
    /// Regenerate manifests/crds
    #[command(after_help = "\
Examples:
  cargo xtask crds                 after a change of crds/
  cargo xtask crds --check         as lint does")]
    Crds(crds::CrdsArgs),
    /// Format the code
    #[command(after_help = "\
Examples:
  cargo xtask fmt
  cargo xtask fmt --check          as lint does")]
    Fmt {
        /// Change nothing; fail if something is not formatted
        #[arg(long)]
        check: bool,
    },
    /// Format, clippy, generated files, licenses: all that needs no test run
    #[command(after_help = "\
Examples:
  cargo xtask lint && cargo xtask test        what a change must pass")]
    Lint,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    process::end_steps_on_signals()?;
    match command {
        Command::Setup => setup::run(),
        Command::Build(args) => build::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::E2e(args) => test::run_e2e(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Vm(args) => vm::run(&args).map(|never: Infallible| match never {}),
        Command::Bench(args) => bench::run(&args),
        Command::Crds(args) => crds::run(&args),
        Command::Fmt { check } => lint::fmt(check),
        Command::Lint => lint::lint(),
    }
}
