//! `cargo xtask demo`: from nothing to a table that shows Eggs at work on a real Kubernetes.

use anyhow::{Result, bail};
use clap::Args;

use crate::cluster::{self, LocalCluster};
use crate::kubernetes::Kubernetes;
use crate::process::step;
use crate::setup::{self, Part};
use crate::{build, workspace};

/// What becomes of the cluster.
#[derive(Args)]
pub struct DemoArgs {
    /// Leave the cluster running, and say how to use it
    #[arg(long)]
    keep: bool,
}

/// Runs `cargo xtask demo`. An error if a check of the demo fails.
pub fn run(args: &DemoArgs) -> Result<()> {
    setup::ensure(&[Part::Cluster, Part::Images])?;
    cluster::build_kubernetes_beside(build::all)?;

    let cluster =
        if args.keep { LocalCluster::up(&cluster::default_dir(), 2)? } else { LocalCluster::own()? };
    let mut kubernetes = Kubernetes::Local(cluster);
    kubernetes.install()?;

    let demo = kubernetes.command([workspace::binary("demo")]);
    // The demo's total is to be our last line, so it waits until the cluster is gone.
    let mut total = String::new();
    let status = step("the demo", demo).limit(600).lines(|line| {
        if line.starts_with("demo: ") {
            total = line.to_owned();
        } else {
            println!("{line}");
        }
    })?;
    if !status.success() {
        kubernetes.explain();
    }
    if let (Kubernetes::Local(cluster), true) = (&mut kubernetes, args.keep) {
        cluster.keep();
        eprintln!("xtask: the cluster runs on: cargo xtask cluster exec -- kubectl get eggs -A");
        eprintln!("xtask: and to stop it: cargo xtask cluster down");
    }
    drop(kubernetes);
    println!("{total}");
    if status.success() { Ok(()) } else { bail!("the demo's checks did not all pass") }
}
