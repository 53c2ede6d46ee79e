//! The Kubernetes that a command works with: our own on this machine, or one that a kubeconfig names.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::LocalCluster;
use crate::images;
use crate::process::{command, step};

const NAMESPACE: &str = "l7egg-system";

/// A Kubernetes and the way to it.
pub enum Kubernetes {
    /// On this machine, reachable only from inside its namespaces.
    Local(LocalCluster),
    /// Reachable from here with this kubeconfig. Our images must be in its nodes.
    Kubeconfig(PathBuf),
}

impl Kubernetes {
    /// A command that finds kubectl on PATH and the cluster through KUBECONFIG.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        match self {
            Self::Local(cluster) => cluster.inside(arguments),
            Self::Kubeconfig(path) => {
                let mut env = command("env", arguments);
                env.env("KUBECONFIG", path);
                env
            }
        }
    }

    /// Installs operator and node agent from this working tree and waits until they run.
    pub fn install(&self) -> Result<()> {
        if let Self::Local(cluster) = self {
            cluster.load(&images::all()?)?;
        }
        // The kubectl of Kubernetes 1.20 knows no CEL rules in CRDs.
        let apply = match self {
            Self::Local(cluster) => self.command(["sh", "-c", &apply_to_nodes_in(&cluster.cgroup2()?)]),
            Self::Kubeconfig(_) => {
                self.command(["kubectl", "apply", "--validate=false", "-k", "manifests/local"])
            }
        };
        step("installing l7egg", apply).limit(120).quietly("install")?;
        let workloads = self.kubectl(&["-n", NAMESPACE, "get", "deployments,daemonsets", "-o", "name"])?;
        for workload in workloads.lines() {
            let status = ["kubectl", "-n", NAMESPACE, "rollout", "status", workload, "--timeout=120s"];
            let waited =
                step(format!("waiting for {workload}"), self.command(status)).limit(150).quietly("rollout");
            if waited.is_err() {
                self.explain();
            }
            waited.context("l7egg does not start")?;
        }
        Ok(())
    }

    /// Waits until a node's agent is ready, however slow the node.
    pub fn agent_is_ready(&self, node: &str) -> Result<()> {
        let of_node = format!("spec.nodeName={node}");
        let wait = [
            "kubectl",
            "-n",
            NAMESPACE,
            "wait",
            "pod",
            "--for=condition=Ready",
            "-l",
            "app.kubernetes.io/name=l7egg-node-agent",
            "--field-selector",
            &of_node,
            "--timeout=300s",
        ];
        let waited =
            step(format!("waiting for the agent on {node}"), self.command(wait)).limit(330).quietly("agent");
        if waited.is_err() {
            self.explain();
        }
        waited
    }

    /// Prints what a developer looks at first when something in the cluster fails.
    pub fn explain(&self) {
        let logs =
            ["-n", NAMESPACE, "logs", "--prefix", "--tail=15", "-l", "app.kubernetes.io/part-of=l7egg"];
        let events = ["-n", NAMESPACE, "get", "events", "--sort-by=.lastTimestamp"];
        for arguments in [&["get", "pods", "-A", "-o", "wide"][..], &events, &logs] {
            match self.kubectl(arguments) {
                Ok(text) => eprintln!("--- kubectl {}\n{text}", arguments.join(" ")),
                Err(error) => eprintln!("--- {error:#}"),
            }
        }
        if let Self::Local(cluster) = self {
            eprintln!("--- the services' logs are in {}/node*/log", cluster.dir().display());
        }
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let kubectl = self.command(["kubectl"].iter().chain(arguments));
        step(format!("kubectl {}", arguments.join(" ")), kubectl).limit(60).capture()
    }
}

/// Applies the manifests for nodes that share this machine: each agent is told its node's own cgroup below `cgroup`, so that
/// no Egg for nodes is ever for the machine.
fn apply_to_nodes_in(cgroup: &str) -> String {
    format!(
        "kubectl kustomize manifests/local | sed 's|^\\( *\\)- --host-root=.*|&\\n\\1- --host-cgroup={cgroup}/$(NODE_NAME)|' | kubectl apply --validate=false -f -"
    )
}
