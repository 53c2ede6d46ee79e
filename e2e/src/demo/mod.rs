//! What `cargo xtask demo` prints: an Egg at work, step by step, with every packet really sent.

mod scene;
mod table;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::future::try_join_all;
use tokio::process::Command;

use crate::cluster::{Cluster, EggView, Namespace, Pod, World, check, eventually};
use scene::Step;
use table::Row;

/// Shows it all on the cluster of the kubeconfig, and returns whether every check passed.
///
/// # Errors
/// When the cluster does not do what the demo needs, such as start pods.
pub async fn run() -> anyhow::Result<bool> {
    let start = Instant::now();
    let progress = |what: &str| eprintln!("demo: +{:.0} s: {what}", start.elapsed().as_secs_f32());
    let cluster = Cluster::connect().await?;
    progress("starting the test world and three pods");
    let world = World::ensure(&cluster).await?;
    let namespace = cluster.namespace("shop").await?;
    let (pods, named) =
        tokio::join!(namespace.start_all(scene::pods(cluster.two_nodes())), world.set(scene::ZONE));
    let pods = pods?;
    named?;

    let mut rows = Vec::new();
    progress("no Egg yet");
    rows.extend(show(&pods, &scene::without_egg("no Egg yet")).await?);

    progress("kubectl apply -f egg.yaml");
    println!("\n{}", scene::EGG);
    let egg = namespace.enforce(scene::EGG, 2).await?;
    rows.extend(show(&pods, &scene::with_egg(&pods)).await?);
    rows.push(kubectl_get_eggs(&namespace).await?);

    progress("the Egg is changed: example.test instead of api.stripe.test");
    namespace.enforce(&scene::changed_egg(), 2).await?;
    rows.extend(show(&pods, &scene::with_changed_egg()).await?);

    progress("kubectl delete egg checkout");
    delete(&egg, &pods).await?;
    rows.extend(show(&pods, &scene::without_egg("no Egg any more")).await?);

    progress("cleaning up");
    drop(namespace);
    let passed = rows.iter().filter(|row| row.passed).count();
    rows.iter().filter(|row| !row.passed).for_each(|row| println!("failed: {row}"));
    println!("demo: {} checks, {passed} passed", rows.len());
    Ok(passed == rows.len())
}

/// Sends the packets of one step, from all pods at the same time, and prints what became of them.
async fn show(pods: &[Pod], step: &Step) -> anyhow::Result<Vec<Row>> {
    let of_pods = pods.iter().map(|pod| async move {
        let lines: Vec<_> = step.lines.iter().filter(|line| line.pod == pod.name).collect();
        let expectations: Vec<_> = lines.iter().map(|line| line.expectation.clone()).collect();
        let checked = check(pod, &expectations).await?;
        anyhow::Ok(
            lines.iter().zip(checked).map(|(line, checked)| Row::new(pod, line.egg_says, checked)).collect(),
        )
    });
    let rows: Vec<Vec<Row>> = try_join_all(of_pods).await?;
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    println!("\n{}", step.title);
    table::print(&rows);
    Ok(rows)
}

/// As a user sees it.
async fn kubectl_get_eggs(namespace: &Namespace) -> anyhow::Result<Row> {
    println!("\n$ kubectl get eggs -A");
    let output = Command::new("kubectl")
        .args(["get", "eggs", "-A"])
        .output()
        .await
        .context("cannot run kubectl: it must be on PATH for the demo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    if !output.status.success() {
        bail!("kubectl get eggs -A: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let listed = text.lines().find(|line| line.starts_with(&namespace.name)).unwrap_or_default();
    Ok(Row::of_kubectl(listed, listed.contains("checkout") && listed.contains("True")))
}

async fn delete(egg: &EggView, pods: &[Pod]) -> anyhow::Result<()> {
    egg.delete().await?;
    eventually("the pods are free again", Duration::from_secs(30), || async {
        let tries = try_join_all(pods.iter().map(|pod| pod.connect(&["udp4://198.18.0.80:123"]))).await?;
        let free = tries.iter().flatten().all(|report| report.outcome.is_reached());
        Ok(if free { Ok(()) } else { Err("the Egg's policy is still in force".to_string()) })
    })
    .await
}
