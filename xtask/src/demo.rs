//! `cargo xtask demo`: from nothing to a table that shows Eggs at work on a real Kubernetes.

use std::thread;

use anyhow::{Context, Result, anyhow};
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
    // On a fresh machine both take minutes, and neither keeps all processors busy all the time.
    thread::scope(|scope| {
        let kubernetes = scope.spawn(cluster::build_kubernetes);
        let built = build::all();
        kubernetes.join().map_err(|_| anyhow!("the build of Kubernetes panicked"))??;
        built
    })?;

    let mut cluster = LocalCluster::own()?;
    if args.keep {
        cluster.keep();
    }
    let kubernetes = Kubernetes::Local(cluster);
    kubernetes.install()?;
    let demo = kubernetes.command([workspace::binary("demo")]);
    let shown = step("the demo", demo).limit(600).run();
    if shown.is_err() {
        kubernetes.explain();
    }
    if let (Kubernetes::Local(cluster), true) = (&kubernetes, args.keep) {
        let dir = cluster.dir().display();
        eprintln!("xtask: the cluster runs on; cargo xtask cluster exec --dir {dir} -- kubectl get eggs -A");
        eprintln!("xtask: and to stop it: cargo xtask cluster down --dir {dir}");
    }
    shown.context("the demo's checks did not all pass")
}
