//! A running cluster as a value: whatever happens to the command that holds it, the cluster ends with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal;
use nix::unistd::Pid;

use crate::images;
use crate::process::{command, step};
use crate::setup::{self, Part};
use crate::workspace;

/// What a directory of a command's own cluster is called, before the process ID.
const OWN: &str = "l7egg-run-";

/// A cluster on this machine. Dropping it stops it and removes its traces, unless [`LocalCluster::keep`] was called.
pub struct LocalCluster {
    dir: PathBuf,
    keep: bool,
}

impl LocalCluster {
    /// Starts a cluster with its state in `dir`, and its DNS in it.
    pub fn up(dir: &Path, nodes: u8) -> Result<Self> {
        setup::ensure(&[Part::Cluster, Part::Images])?;
        build_kubernetes()?;
        let testkit = images::testkit()?;
        let in_use = dir.join("cluster.env").exists();
        // From here on, an error stops what has started; but not a cluster that was there before.
        let cluster = Self { dir: dir.to_path_buf(), keep: in_use };
        let mut up = kit(dir, "up");
        up.args(["--nodes", &nodes.to_string()]);
        step(format!("starting Kubernetes with {nodes} nodes"), up).limit(300).run()?;
        cluster.load(&[testkit])?;
        let dns = workspace::kit("cluster/dns.yaml");
        let apply = cluster.inside(["kubectl", "apply", "-f", &dns.to_string_lossy()]);
        step("installing the cluster's DNS", apply).limit(60).capture()?;
        let ready =
            ["kubectl", "-n", "kube-system", "rollout", "status", "deployment/l7egg-dns", "--timeout=90s"];
        step("waiting for the cluster's DNS", cluster.inside(ready)).limit(120).quietly("cluster-dns")?;
        Ok(cluster)
    }

    /// A cluster for this command alone, in a directory that no other uses.
    pub fn own() -> Result<Self> {
        stop_abandoned()?;
        Self::up(&std::env::temp_dir().join(format!("{OWN}{}", std::process::id())), 2)
    }

    /// One that runs already, and stays.
    pub fn running(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), keep: true }
    }

    /// Lets the cluster run on.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Where its state and its logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A command that runs on node1, with kubectl on PATH and KUBECONFIG set.
    pub fn inside<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut exec = kit(&self.dir, "exec");
        exec.arg("--").args(arguments);
        exec
    }

    /// The cgroup2 directory below which each node has one of its own.
    pub fn cgroup2(&self) -> Result<String> {
        let path = self.dir.join("cluster.env");
        let env =
            fs::read_to_string(&path).with_context(|| format!("no cluster in {}", self.dir.display()))?;
        let found = env.lines().find_map(|line| line.strip_prefix("CGROUP2="));
        found
            .map(ToOwned::to_owned)
            .with_context(|| format!("{} is of an older cluster: stop it, and start another", path.display()))
    }

    /// Imports image archives into every node.
    pub fn load(&self, archives: &[PathBuf]) -> Result<()> {
        load(&self.dir, archives)
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let mut down = kit(&self.dir, "down");
        down.stdout(Stdio::null());
        if let Err(error) = step("stopping the cluster", down).limit(120).shielded().run() {
            eprintln!("xtask: {error:#}\nxtask: try: cargo xtask cluster down --dir {}", self.dir.display());
        }
    }
}

/// `cluster.sh ACTION --dir DIR`.
pub fn kit(dir: &Path, action: &str) -> Command {
    let mut kit = command(workspace::kit("cluster/cluster.sh"), [action, "--dir"]);
    kit.arg(dir).env("L7EGG_CACHE", workspace::cache());
    kit
}

/// Imports image archives into every node of the cluster in `dir`.
pub fn load(dir: &Path, archives: &[PathBuf]) -> Result<()> {
    let mut load = kit(dir, "load");
    load.args(archives);
    step("loading images into the nodes", load).limit(300).run()
}

/// Builds Kubernetes unless the cache has it.
pub fn build_kubernetes() -> Result<()> {
    let script = |arguments: &[&str]| {
        let mut script = command(workspace::kit("cluster/build-kube.sh"), arguments);
        script.env("L7EGG_CACHE", workspace::cache());
        script
    };
    if step("looking for Kubernetes in the cache", script(&["--cached"])).limit(60).capture().is_ok() {
        return Ok(());
    }
    step("building Kubernetes (once, 3 to 5 minutes)", script(&[])).limit(3600).quietly("kubernetes")
}

/// Stops clusters of commands that were killed before they could.
fn stop_abandoned() -> Result<()> {
    for entry in fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(OWN)?.parse().ok()) else { continue };
        if signal::kill(Pid::from_raw(pid), None).is_err() {
            step("stopping an abandoned cluster", kit(&entry.path(), "down")).limit(120).run()?;
        }
    }
    Ok(())
}
