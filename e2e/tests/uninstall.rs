//! Removing the product, as docs/operations.md says it: its very lines are run. The last test of all, as nothing is left for others.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use l7egg_e2e::cluster::{Node, PodPlan, Setting, blocked, eventually, reached};
use l7egg_e2e::probe::Attached;
use tokio::process::Command;

/// For one command of the documentation.
const LIMIT: Duration = Duration::from_secs(180);

const DOCS: &str = include_str!("../../docs/operations.md");
const EGG: &str = "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {name: shop}
spec:
  podSelector: {matchLabels: {app: shop}}
  egress: [{to: [{domainNames: ['*.fresh.test']}]}]
";
const ALLOWED: &str = "tcp4://n970.fresh.test:80";
const DENIED: [&str; 2] = ["tcp://198.18.0.80:80", "udp://[2001:db8:18::80]:123"];

/// The commands of the section.
fn commands() -> impl Iterator<Item = &'static str> {
    let section =
        DOCS.split("\n## ").find(|section| section.starts_with("Removing it\n")).unwrap_or_default();
    let code = section.lines().filter_map(|line| line.strip_prefix("    "));
    code.filter_map(|line| line.split('#').next().map(str::trim)).filter(|command| !command.is_empty())
}

/// What is attached on a node: to cgroups of it and its pods, and to its interfaces.
async fn attached(node: &Node) -> anyhow::Result<Attached> {
    // In the local cluster each node has a directory of its own, beside which are those of others.
    let script = r#"own=$(sed -n 's/^0:://p' /proc/1/cgroup)
        root=/proc/1/root/sys/fs/cgroup; [ ! -d $root/unified ] || root=$root/unified
        nsenter -t 1 -n /probe attached "$root${own%/*}""#;
    Ok(serde_json::from_str(&node.exec(&["sh", "-c", script]).await?)?)
}

async fn has_pins(node: &Node) -> anyhow::Result<bool> {
    let listed = node.exec(&["sh", "-c", "ls /proc/1/root/sys/fs/bpf"]).await?;
    Ok(listed.split_whitespace().any(|name| name == "l7egg"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_documentation_says_removes_all_of_it() -> anyhow::Result<()> {
    let Some(test) = Setting::new("uninstall").await? else { return Ok(()) };
    let [node1, node2] = test.cluster.two_nodes();
    let plan = |name: &str, node| PodPlan::new(name).label("app", "shop").on(node);
    let pods = test.namespace.start_all([plan("one", node1), plan("two", node2)]).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    test.namespace.enforce(EGG, 2).await?;
    // The gate of strict agents is the most that can be left behind.
    test.cluster.set_agents("L7EGG_STRICT", "true").await?;
    let denied = || std::iter::once(reached(ALLOWED)).chain(DENIED.map(blocked)).collect();
    let free = || std::iter::once(reached(ALLOWED)).chain(DENIED.map(reached)).collect();
    test.namespace.verify(&pods.each_ref().map(|pod| (pod, denied()))).await?;
    for node in &nodes {
        let before = attached(node).await?;
        println!("  {}: {before:?}", node.node());
        ensure!(before.cgroups > 0 && has_pins(node).await?, "nothing is attached: {before:?}");
    }

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let mut many = 0;
    for command in commands() {
        let start = Instant::now();
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", command]).current_dir(root).kill_on_drop(true).output();
        let output = tokio::time::timeout(LIMIT, output).await.with_context(|| command.to_owned())??;
        println!("  $ {command}: {} in {:.1} s", output.status, start.elapsed().as_secs_f64());
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        many += 1;
    }
    ensure!(many >= 4, "docs/operations.md has no such commands any more");

    for node in &nodes {
        let after =
            eventually(&format!("nothing is left on {}", node.node()), Duration::from_secs(20), || async {
                let (after, has_pins) = (attached(node).await?, has_pins(node).await?);
                let is_left = after.cgroups > 0 || after.interfaces > 0 || has_pins;
                Ok(if is_left { Err(format!("{after:?}, pins: {has_pins}")) } else { Ok(after) })
            })
            .await?;
        println!("  {}: {after:?}", node.node());
    }
    let crds: Api<CustomResourceDefinition> = Api::all(test.cluster.client().clone());
    let roles: Api<ClusterRole> = Api::all(test.cluster.client().clone());
    let crds = crds.list(&ListParams::default()).await?.into_iter().map(|crd| crd.name_any());
    let roles = roles.list(&ListParams::default()).await?.into_iter().map(|role| role.name_any());
    let left: Vec<String> = crds.chain(roles).filter(|name| name.contains("l7egg")).collect();
    ensure!(left.is_empty(), "left in the API server: {left:?}");

    let late = test.namespace.start(plan("late", node1)).await?;
    let all = pods.iter().chain([&late]).map(|pod| (pod, free())).collect::<Vec<_>>();
    test.namespace.verify(&all).await
}
