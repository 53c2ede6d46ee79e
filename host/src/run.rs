//! Wires the parts together.

use std::{fs, path::PathBuf, process::ExitCode, sync::mpsc, thread, time::Instant};

use anyhow::Context;
use l7egg_crds::Mode;
use l7egg_daemon::output;
use l7egg_node_agent::{
    boot::notify,
    cgroup::PodCgroup,
    engine::{self, End, Engine, Signals},
    flow_log,
    hold::HoldSettings,
    host_file::HostFile,
    inventory::Inventory,
    kernel_events,
    preflight::Node,
    reconcile::{Apart, Input, NodeCgroup},
    resolv_conf::{FollowedResolvConf, Readers, only_here},
    resolvers::NodeResolvers,
    run::detach,
    status,
};
use l7egg_operator::index::{Egg, Selection};
use serde_json::json;
use tokio::sync::oneshot;

use crate::{
    files::Files,
    follow::{self, Follow},
    settings::{CheckSettings, Cli, Command, RunSettings, UnitsSettings},
    units::{self, UnitWatch},
    wanted::Host,
};

/// Does what the command line says.
///
/// # Errors
/// What the user has to know, in one line.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(settings) => {
            cli.log.start();
            enforce(*settings).await
        }
        Command::Check(settings) => check(&settings),
        Command::Units(settings) => show_units(&settings),
        Command::Status(settings) => status::run(&settings).await,
        Command::Denied(settings) => flow_log::show::run(&settings).await,
        Command::Detach(settings) => detach(&settings).await,
    }
}

async fn enforce(settings: RunSettings) -> anyhow::Result<ExitCode> {
    engine::begin();
    let roots = settings.cgroup_root.iter().cloned().collect();
    let node = Node { root: "/".into(), bpffs: settings.bpffs.clone(), cgroup_roots: roots };
    engine::preflight(&node)?;
    let signals = Signals::new()?;
    let root = root_of(&node)?;
    let file = HostFile::new(None, &settings.resolv_conf);
    let resolvers = FollowedResolvConf::read(file, Readers::Host, NodeResolvers::default());
    let host = host(&settings)?;
    let datapath = settings.datapath(kernel_events::tells_learned());
    let (engine, kernel) = Engine::open(&datapath).await?;
    let (inputs, received) = mpsc::channel();
    // There is no API server that the host must not be cut off from.
    inputs.send(Input::ApiServers(Default::default()))?;
    let watch = UnitWatch::new(&root)
        .context("no inotify instance can be had: raise fs.inotify.max_user_instances")?;
    let id = fs::metadata(&root).map(|found| std::os::unix::fs::MetadataExt::ino(&found));
    let id = id.with_context(|| format!("--cgroup-root {} cannot be read", root.display()))?;
    let reconciler = engine
        .reconciler(kernel, Inventory::new(settings.audit), resolvers.known().clone(), HoldSettings::Never)
        .with_node(NodeCgroup {
            cgroup: PodCgroup { path: root.clone(), id },
            is_given: true,
            apart: Apart::EnforcedPods,
        });
    if settings.audit {
        tracing::warn!("--audit: no Egg is enforced on this host; what would be denied is recorded");
    }
    tracing::info!(host = host.name, eggs = ?settings.eggs, "l7egg runs");
    let files = Files::new(settings.eggs.clone());
    let (begun, told) = oneshot::channel();
    let follow = Follow { files, resolvers, root, host, watch, inputs: inputs.clone(), begun: Some(begun) };
    thread::Builder::new().name("units".into()).spawn(move || follow::follow(follow))?;
    let mut outcome = engine.outcome();
    tokio::spawn(async move {
        let Ok(is_whole) = told.await else { return };
        // Where some file cannot be read, the others are in force by now.
        if !is_whole || outcome.wait_for(|outcome| outcome.state.synced).await.is_ok() {
            notify::ready();
        }
    });
    let end = End { on_exit: settings.on_exit, bpffs: &settings.bpffs };
    engine.run(reconciler, (inputs, received), signals, settings.admin(), &end).await?;
    Ok(ExitCode::SUCCESS)
}

fn check(settings: &CheckSettings) -> anyhow::Result<ExitCode> {
    let mut files = Files::new(settings.eggs.clone());
    let mut look = files.look(Instant::now());
    let accepted: Vec<String> = files.accepted().map(|egg| egg.key.to_string()).collect();
    if accepted.is_empty() && look.problems.is_empty() {
        let places: Vec<String> = settings.eggs.iter().map(|path| path.display().to_string()).collect();
        look.problems.push(format!("no Egg in {}", places.join(", ")));
    }
    if files.accepted().any(|egg| has_names(egg) || is_firewall(egg))
        && let Some(error) = only_here(HostFile::new(None, &settings.resolv_conf))
    {
        look.problems.push(error.to_string());
    }
    if settings.json {
        let told = json!({"accepted": accepted, "ignored": look.ignored, "problems": look.problems});
        output::print(&(serde_json::to_string_pretty(&told)? + "\n"))?;
    } else {
        let accepted: String = accepted.iter().map(|egg| format!("{egg}: can be enforced\n")).collect();
        output::print(&accepted)?;
        look.ignored.iter().for_each(|ignored| output::eprint(&format!("{ignored}\n")));
        look.problems.iter().for_each(|problem| output::eprint(&format!("error: {problem}\n")));
    }
    Ok(if look.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether it judges what the host's own stub asks.
fn is_firewall(egg: &Egg) -> bool {
    egg.spec.as_ref().is_ok_and(|accepted| {
        matches!(accepted.selection, Selection::Nodes(_)) && accepted.policy.mode == Mode::Enforce
    })
}

/// Whether it opens, or closes, anything by name.
fn has_names(egg: &Egg) -> bool {
    let rules = egg.spec.iter().flat_map(|accepted| &accepted.policy.egress);
    rules.flat_map(|rule| &rule.to).any(|to| {
        [&to.domain_names, &to.domain_suffixes, &to.domain_regex].iter().any(|names| !names.is_empty())
    })
}

fn show_units(settings: &UnitsSettings) -> anyhow::Result<ExitCode> {
    let roots = settings.cgroup_root.iter().cloned().collect();
    let root = root_of(&Node { root: "/".into(), bpffs: PathBuf::new(), cgroup_roots: roots })?;
    let units = units::scan(&root).with_context(|| format!("{} cannot be read", root.display()))?;
    output::print(&match settings.json {
        true => serde_json::to_string_pretty(&units)? + "\n",
        false => units::table(&units),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn root_of(node: &Node) -> anyhow::Result<PathBuf> {
    node.cgroup2_roots().into_iter().next().context("no cgroup2 is mounted: mount it, or give --cgroup-root")
}

fn host(settings: &RunSettings) -> anyhow::Result<Host> {
    let name = nix::unistd::gethostname().context("the host's name cannot be read")?;
    let name = name.to_string_lossy().into_owned();
    Ok(Host { labels: settings.labels(&name), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_learned_here_are_an_error_beforehand() {
        let directory = tempfile::tempdir().unwrap();
        let (egg, resolv_conf) = (directory.path().join("web.yaml"), directory.path().join("resolv.conf"));
        let check = |to: &str, servers: &str| {
            let spec = format!("{{podSelector: {{}}, egress: [{{to: [{{{to}}}]}}]}}");
            let text =
                format!("apiVersion: l7egg.dev/v1alpha1\nkind: Egg\nmetadata: {{name: web}}\nspec: {spec}\n");
            fs::write(&egg, text).unwrap();
            fs::write(&resolv_conf, servers).unwrap();
            let settings =
                CheckSettings { eggs: vec![egg.clone()], resolv_conf: resolv_conf.clone(), json: false };
            check(&settings).unwrap() == ExitCode::SUCCESS
        };
        let (names, networks) = ("domainNames: [a.example]", "cidr: 192.0.2.0/24");
        let (stub, server) = ("nameserver 127.0.0.53\n", "nameserver 192.0.2.53\n");
        assert!(!check(names, stub));
        assert!(!check("domainSuffixes: [.example]", stub) && !check("domainRegex: ['a.example']", stub));
        assert!(check(names, server) && check(names, "") && check(networks, stub));
        let firewall = |mode: &str| {
            let spec = format!("{{nodeSelector: {{}}, mode: {mode}, egress: [{{to: [{{{networks}}}]}}]}}");
            let text = format!(
                "apiVersion: l7egg.dev/v1alpha1\nkind: ClusterEgg\nmetadata: {{name: host}}\nspec: {spec}\n"
            );
            fs::write(&egg, text).unwrap();
            let settings =
                CheckSettings { eggs: vec![egg.clone()], resolv_conf: resolv_conf.clone(), json: false };
            super::check(&settings).unwrap() == ExitCode::SUCCESS
        };
        fs::write(&resolv_conf, stub).unwrap();
        assert!(!firewall("Enforce") && firewall("Audit"));
    }
}
