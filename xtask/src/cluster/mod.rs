//! `cargo xtask cluster`: a real Kubernetes on this machine, in namespaces of its own, from Debian's packages.

mod local;
mod vm_node;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};

pub use local::LocalCluster;
pub use vm_node::VmNode;

use crate::images;
use crate::process::{replace_by, step};
use crate::setup::{self, Part};
use crate::workspace::absolute;

/// Which cluster, and what to do with it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask cluster up
  cargo xtask cluster exec -- kubectl get nodes
  cargo xtask images && cargo xtask cluster load
  cargo xtask cluster exec -- kubectl apply --validate=false -k manifests/local
  cargo xtask cluster restart node2 kubelet
  cargo xtask cluster down

node1 (control plane and kubelet), node2 and world (the nodes' default gateway) have network, mount and process
namespaces of their own; nothing is reachable from the host's network. Clusters with different --dir run side by side.")]
pub struct ClusterArgs {
    /// Where the cluster's state lives
    #[arg(long, global = true, default_value_os_t = default_dir(), value_parser = absolute)]
    dir: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster with its DNS (about 20 s; the first time, build Kubernetes: 3 to 5 minutes)
    Up {
        /// 1 or 2
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
        nodes: u8,
    },
    /// Stop a cluster and remove everything that it left
    Down {
        /// Keep the logs of services and pods
        #[arg(long)]
        keep_logs: bool,
    },
    /// What runs, and its memory
    Status,
    /// Print the kubeconfig's path; it works only inside (see `exec`)
    Kubeconfig,
    /// Run a command inside a machine, in this directory, with kubectl on PATH and KUBECONFIG set
    Exec {
        /// node1, node2 or world
        #[arg(long, default_value = "node1")]
        on: String,
        /// The command and its arguments
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Import image archives into every node
    Load {
        /// Archives; without any, those that `cargo xtask images` makes
        #[arg(value_parser = absolute)]
        archives: Vec<PathBuf>,
    },
    /// Restart one service
    Restart {
        /// node1 or node2
        machine: String,
        /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet or kube-proxy
        service: String,
    },
}

/// Runs `cargo xtask cluster …`.
pub fn run(args: &ClusterArgs) -> Result<()> {
    let cluster = |action: &str| local::kit(&args.dir, action);
    match &args.action {
        Action::Up { nodes } => {
            let mut started = LocalCluster::up(&args.dir, *nodes)?;
            started.keep();
            eprintln!(
                "xtask: the cluster is up; try: cargo xtask cluster exec{} -- kubectl get pods -A",
                dir_flag(&args.dir)
            );
            Ok(())
        }
        Action::Down { keep_logs } => {
            let mut down = cluster("down");
            down.args(keep_logs.then_some("--keep-logs"));
            step("stopping the cluster", down).limit(120).run()
        }
        Action::Status => never(replace_by(cluster("status"))?),
        Action::Kubeconfig => never(replace_by(cluster("kubeconfig"))?),
        Action::Exec { on, command } => {
            let mut exec = cluster("exec");
            exec.args(["--on", on, "--"]).args(command).current_dir(std::env::current_dir()?);
            never(replace_by(exec)?)
        }
        Action::Load { archives } if archives.is_empty() => local::load(&args.dir, &images::all()?),
        Action::Load { archives } => local::load(&args.dir, archives),
        Action::Restart { machine, service } => {
            let mut restart = cluster("restart");
            restart.args([machine, service]);
            step(format!("restarting {service} on {machine}"), restart).limit(120).run()
        }
    }
}

/// Where a cluster lives that is to stay.
pub fn default_dir() -> PathBuf {
    std::env::temp_dir().join("l7egg-cluster")
}

/// Builds Kubernetes unless the cache has it, and does other work meanwhile: on a fresh machine both take minutes,
/// and neither keeps all processors busy all the time.
pub fn build_kubernetes_beside(work: impl FnOnce() -> Result<()>) -> Result<()> {
    setup::ensure(&[Part::Cluster])?;
    thread::scope(|scope| {
        let kubernetes = scope.spawn(local::build_kubernetes);
        let worked = work();
        kubernetes.join().map_err(|_| anyhow!("the build of Kubernetes panicked"))??;
        worked
    })
}

fn never(infallible: Infallible) -> Result<()> {
    match infallible {}
}

fn dir_flag(dir: &Path) -> String {
    if dir == default_dir() { String::new() } else { format!(" --dir {}", dir.display()) }
}
