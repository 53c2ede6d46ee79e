//! Wires the parts together.

use std::{io, process::ExitCode, sync::mpsc, thread, time::Duration};

use anyhow::{Context, bail};
use l7egg_daemon::{client::connect, output, revisions::Revisions};
use l7egg_policy::DomainName;

use crate::{
    api_servers, boot,
    boot_id::boot_id,
    cgroup::{CgroupWatch, Follower, PodCgroup},
    engine::{self, End, Engine, Signals},
    flow_log,
    given::PastOfNode,
    hold::HoldSettings,
    host_file::HostFile,
    inventory::Inventory,
    kernel, kernel_events,
    lock::{Lock, LockError, PATIENCE},
    netns::{FilterWatch, tc::Method},
    notice::Notices,
    preflight::Node,
    reconcile::{Apart, Input, NodeCgroup},
    reporter,
    resolv_conf::{self, FollowedResolvConf, Readers},
    resolvers::{NodeResolvers, cluster_domain, nameservers, search_domains},
    selected::Selected,
    settings::{Cli, Command, DetachSettings, RunSettings},
    status, watch,
};

/// The cgroup tree is read from end to end this often, beside what inotify tells.
const RESCAN_EVERY: Duration = Duration::from_secs(5);

/// Does what the command line says.
///
/// # Errors
/// What the user has to know, in one line.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match (cli.command, cli.run) {
        (Some(Command::Status(settings)), _) => status::run(&settings).await,
        (Some(Command::Denied(settings)), _) => flow_log::show::run(&settings).await,
        (Some(Command::Detach(settings)), _) => detach(&settings).await,
        (Some(Command::Gate(settings)), _) => boot::run(&settings).await.map(|()| ExitCode::SUCCESS),
        (Some(Command::Run(settings)), _) => {
            cli.log.start();
            agent(*settings).await
        }
        (None, Some(settings)) => {
            cli.log.start();
            agent(settings).await
        }
        (None, None) => {
            bail!("--node-name (or NODE_NAME) is needed: the node's name, as the API server knows it")
        }
    }
}

/// Does what `detach` says. Not beside an agent, which would put everything back.
///
/// # Errors
/// An agent runs, or something could not be removed.
pub async fn detach(settings: &DetachSettings) -> anyhow::Result<ExitCode> {
    detach_within(PATIENCE, settings).await
}

async fn detach_within(patience: Duration, settings: &DetachSettings) -> anyhow::Result<ExitCode> {
    let _lock = match Lock::take_within(patience, &settings.bpffs).await {
        Ok(lock) => Some(lock),
        Err(LockError::Taken { bpffs, holder }) => bail!(
            "nothing was detached: an l7egg ({holder}) runs with the bpffs {}, and would enforce again what is taken from it. Stop it first, or start it with --on-exit detach: then it takes everything off when it is stopped",
            bpffs.display()
        ),
        // Nothing of ours was ever there.
        Err(LockError::Unusable { .. }) if !settings.bpffs.join("l7egg").exists() => None,
        Err(error) => return Err(error.into()),
    };
    kernel::remove_everything(&settings.bpffs)?;
    output::print(&format!("nothing of l7egg is left below {}\n", settings.bpffs.display()))?;
    Ok(ExitCode::SUCCESS)
}

async fn agent(settings: RunSettings) -> anyhow::Result<ExitCode> {
    engine::begin();
    let node =
        Node { root: "/".into(), bpffs: settings.bpffs.clone(), cgroup_roots: settings.cgroup_root.clone() };
    engine::preflight(&node)?;
    let signals = Signals::new()?;
    let cluster = cluster(&settings)?;
    let datapath = settings.datapath(kernel_events::tells_learned());
    let (engine, kernel) = Engine::open(&datapath).await?;
    let resolvers = resolvers(&settings, &node, cluster)?;
    let (inputs, received) = mpsc::channel();
    let follower = watch_cgroups(node.cgroup2_roots(), inputs.clone())?;
    if Method::of_this_kernel() == Method::Clsact {
        watch_filters(inputs.clone())?;
    }
    let no_access = "no access to the API server: run in a pod with a service account, or set KUBECONFIG";
    let config = kube::Config::infer().await.context(no_access)?;
    let mut known = api_servers::of_config(&config).await;
    known.extend(&settings.api_server);
    // Watches have one for themselves: from one that others use as well, a watch that starts anew could be given another connection
    // to the same dead host.
    let client = connect(&config).context(no_access)?;
    let writes = connect(&config).context(no_access)?;
    let revisions = Revisions::default();
    tokio::spawn(revisions.clone().follow(writes.clone()));
    tokio::spawn(api_servers::watch(client.clone(), revisions.clone(), known, inputs.clone()));
    watch::assignments(&client, &revisions, &settings.node_name, &inputs);
    let holds = settings.hold() != HoldSettings::Never;
    watch::pods(&client, &revisions, &settings.node_name, &inputs);
    watch::namespaces(&client, &revisions, &inputs);
    if holds {
        watch::eggs(&client, &revisions, &inputs);
    }
    let notices = Notices::new(writes.clone(), &settings.node_name);
    tokio::spawn(reporter::run(writes, engine.outcome(), notices));
    let mut reconciler = engine
        .reconciler(kernel, Inventory::new(settings.audit), resolvers.known().clone(), settings.hold())
        .with_follower(follower)
        .with_node(node_cgroup(&settings, &node)?)
        .with_boot_id(boot_id(settings.host_root.as_deref()))
        .with_pods(if holds { Selected::default() } else { Selected::without_eggs() });
    if settings.egress_bandwidth_annotation {
        reconciler = reconciler.with_annotations();
    }
    if settings.audit {
        tracing::warn!("--audit: no Egg is enforced on this node; what would be denied is recorded");
    }
    tracing::info!(node = settings.node_name, "agent runs");
    resolv_conf::follow(resolvers, inputs.clone())?;
    let end = End { on_exit: settings.on_exit, bpffs: &settings.bpffs };
    engine.run(reconciler, (inputs, received), signals, settings.admin(), &end).await?;
    Ok(ExitCode::SUCCESS)
}

/// The cgroup of all of the node's processes.
fn node_cgroup(settings: &RunSettings, node: &Node) -> anyhow::Result<NodeCgroup> {
    let path =
        settings.host_cgroup.clone().or_else(|| node.cgroup2_mount()).context("no cgroup2 is mounted")?;
    let metadata = std::fs::metadata(&path)
        .with_context(|| format!("--host-cgroup {} cannot be read", path.display()))?;
    let cgroup = PodCgroup { id: std::os::unix::fs::MetadataExt::ino(&metadata), path };
    Ok(NodeCgroup { cgroup, is_given: settings.host_cgroup.is_some(), apart: Apart::AllPods })
}

/// The cluster's DNS.
fn cluster(settings: &RunSettings) -> anyhow::Result<NodeResolvers> {
    let own = std::fs::read_to_string("/etc/resolv.conf").context("/etc/resolv.conf: give --cluster-dns");
    let cluster = match settings.cluster_dns.as_slice() {
        [] => nameservers(own.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?),
        given => given.to_vec(),
    };
    let cluster_domain = match &settings.cluster_domain {
        Some(domain) => Some(domain.clone()),
        None => own.ok().and_then(|own| cluster_domain(&search_domains(&own))),
    };
    let cluster = NodeResolvers {
        cluster,
        cluster_domain: cluster_domain.or_else(|| DomainName::parse("cluster.local").ok()),
        ..NodeResolvers::default()
    };
    tracing::info!(servers = ?cluster.cluster, "the cluster's DNS servers, whose answers pods can learn from");
    Ok(cluster)
}

/// Beside it, what the node's `resolv.conf` says, which is followed, and what agents before this one knew.
fn resolvers(
    settings: &RunSettings,
    node: &Node,
    cluster: NodeResolvers,
) -> anyhow::Result<FollowedResolvConf> {
    let file = HostFile::new(settings.host_root.as_deref(), &settings.resolv_conf);
    let followed = FollowedResolvConf::read(file, Readers::Pods, cluster);
    let note = kernel::Note::new(&settings.bpffs, "resolvers");
    let past = PastOfNode { note, roots: node.cgroup2_roots() };
    Ok(followed.with_past(Box::new(past), !settings.cluster_dns.is_empty()))
}

fn watch_cgroups(roots: Vec<std::path::PathBuf>, inputs: mpsc::Sender<Input>) -> anyhow::Result<Follower> {
    let mut watch = CgroupWatch::new(roots.clone(), RESCAN_EVERY)
        .context("no inotify instance can be had: raise fs.inotify.max_user_instances")?;
    let follower = watch.follower();
    tracing::info!(?roots, "looking for pods");
    thread::Builder::new().name("cgroups".into()).spawn(move || {
        loop {
            match watch.wait() {
                Ok(events) => {
                    for event in events {
                        if inputs.send(Input::Cgroup(event)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cgroups cannot be watched; tried again in a second");
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
    })?;
    Ok(follower)
}

/// Other programs' filters are beside ours there, and some of them remove all. Without this that is found within half a minute.
fn watch_filters(inputs: mpsc::Sender<Input>) -> anyhow::Result<()> {
    thread::Builder::new().name("filters".into()).spawn(move || {
        let mut told = false;
        loop {
            let error = match FilterWatch::open().and_then(|watch| tell_filters(&watch, &inputs)) {
                Ok(()) => return,
                Err(error) => error,
            };
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "changes of interfaces' filters cannot be watched: tried again every other second");
            }
            thread::sleep(Duration::from_secs(2));
        }
    })?;
    Ok(())
}

/// Ends when nobody is left to tell.
fn tell_filters(watch: &FilterWatch, inputs: &mpsc::Sender<Input>) -> io::Result<()> {
    while inputs.send(Input::Filters(watch.wait()?)).is_ok() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_detached_beside_an_agent() {
        let bpffs = tempfile::tempdir().unwrap();
        let settings = DetachSettings { bpffs: bpffs.path().to_owned() };
        let pin = bpffs.path().join("l7egg/v1/pods/p");
        std::fs::create_dir_all(&pin).unwrap();
        let agent = Lock::take(bpffs.path()).await.unwrap();
        let error = detach_within(Duration::ZERO, &settings).await.unwrap_err().to_string();
        assert!(error.contains("--on-exit detach") && error.contains("process "), "{error}");
        assert!(pin.exists());
        drop(agent);
        detach(&settings).await.unwrap();
        assert!(!bpffs.path().join("l7egg").exists());
    }
}
