//! The gate of a node that boots: bpffs is empty then, and the kubelet starts pods again before the agent, which is one of them. So
//! a unit of systemd closes the gate before the kubelet starts, for an agent with `--strict` to find.

mod install;
pub mod notify;

use std::{fs, thread, time::Duration};

use anyhow::{Context, bail};
use l7egg_daemon::output;
use tokio::signal::unix::{SignalKind, signal};

pub use self::install::{BINARY, UNIT, install, remove};
use crate::{
    cgroup::{PodCgroups, scan},
    datapath::{Datapath, DatapathSettings},
    kernel::Kernel,
    preflight::Node,
    settings::{GateCommand, GateSettings},
};

/// The cgroups of pods are looked for this often. A kubelet makes the one that holds all seconds before its first pod.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Does what `gate` is told.
///
/// # Errors
/// What the user has to know, in one line.
pub async fn run(settings: &GateSettings) -> anyhow::Result<()> {
    match &settings.command {
        Some(GateCommand::Install { root }) => {
            install(root)?;
            say(&format!(
                "{UNIT} is installed below {}: it closes the gate when the node boots next",
                root.display()
            ));
            Ok(())
        }
        Some(GateCommand::Remove { root }) => {
            remove(root)?;
            say(&format!("{UNIT} is not installed below {} any more", root.display()));
            Ok(())
        }
        None => close(settings).await,
    }
}

/// Closes the gate as soon as there is a cgroup for it to stand at.
async fn close(settings: &GateSettings) -> anyhow::Result<()> {
    let node =
        Node { root: "/".into(), bpffs: settings.bpffs.clone(), cgroup_roots: settings.cgroup_root.clone() };
    if let Some(missing) = node.missing().first() {
        bail!("the gate cannot be closed: {missing}");
    }
    let traces = settings.bpffs.join("l7egg");
    if fs::read_dir(&traces).is_ok_and(|mut entries| entries.next().is_some()) {
        notify::ready();
        say(&format!("{} has what an agent left: it decides about the gate", traces.display()));
        return Ok(());
    }
    let mut kernel = Kernel::open(&DatapathSettings::at_boot(&settings.bpffs))?;
    notify::ready();
    say("waiting for the kubelet");
    let mut terminate = signal(SignalKind::terminate())?;
    let roots = node.cgroup2_roots();
    let looking = tokio::task::spawn_blocking(move || {
        let ran_before: Vec<u64> = ids(&scan(&roots).cgroups);
        loop {
            let cgroups = scan(&roots).cgroups;
            if cgroups.complete {
                kernel.close_gate(&cgroups.parents, &ran_before)?;
                return anyhow::Ok(cgroups.parents);
            }
            thread::sleep(LOOK_EVERY);
        }
    });
    tokio::select! {
        parents = looking => {
            let parents = parents.context("looking for the kubelet's cgroup")??;
            let parents: Vec<String> = parents.iter().map(|path| path.display().to_string()).collect();
            say(&format!(
                "nothing leaves new pods in {} until this node's agent has decided about them",
                parents.join(", ")
            ));
            Ok(())
        }
        _ = terminate.recv() => std::process::exit(0),
    }
}

/// The gate counts for more than whether that can be said.
fn say(what: &str) {
    let _ = output::print(&format!("{what}\n"));
}

fn ids(cgroups: &PodCgroups) -> Vec<u64> {
    cgroups.pods.values().map(|cgroup| cgroup.id).collect()
}
