//! Eggs for certain containers of a pod.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1 as core;
use kube::api::LogParams;
use l7egg_e2e::cluster::{Expectation, PROBE, Pod, PodPlan, Setting, blocked, eventually, reached};
use l7egg_e2e::probe::{ConnectReport, Outcome};

const ALLOWED: &str = "tcp://198.18.1.1:80";
const DENIED: &str = "tcp://198.18.2.1:80";
/// What a container does. A connection that waits for the container's policy is tried again every half second only: the time is for
/// a machine that is busy.
const TRIES: [&str; 6] = [PROBE, "connect", "--timeout-ms", "5000", ALLOWED, DENIED];

fn egg(containers: &str) -> String {
    format!(
        "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {{name: shop}}
spec:
  podSelector: {{matchLabels: {{app: shop}}}}
  {containers}
  egress: [{{to: [{{cidr: 198.18.1.0/24}}, {{domainNames: ['*.fresh.test']}}]}}]
"
    )
}

/// What a container's program has printed: the outcomes of both targets.
async fn outcomes(
    test: &Setting,
    pod: &str,
    container: &str,
    previous: bool,
) -> anyhow::Result<Vec<Outcome>> {
    let of = LogParams { container: Some(container.into()), previous, ..LogParams::default() };
    let log = test.namespace.api::<core::Pod>().logs(pod, &of).await?;
    let reports: Result<Vec<ConnectReport>, _> = log.lines().map(serde_json::from_str).collect();
    Ok(reports.with_context(|| log.clone())?.into_iter().map(|report| report.outcome).collect())
}

/// The same of an ephemeral container, once it has ended.
async fn outcomes_of_debug(test: &Setting, pod: &str, container: &str) -> anyhow::Result<Vec<Outcome>> {
    let pods = test.namespace.api::<core::Pod>();
    eventually("the ephemeral container has ended", Duration::from_secs(60), || async {
        let status = pods.get(pod).await?.status.unwrap_or_default();
        let found = status.ephemeral_container_statuses.unwrap_or_default().into_iter();
        let state = found.filter(|it| it.name == container).find_map(|it| it.state);
        Ok(match state {
            Some(state) if state.terminated.is_some() => Ok(()),
            state => Err(format!("{state:?}")),
        })
    })
    .await?;
    outcomes(test, pod, container, false).await
}

fn ensure_enforced(who: &str, outcomes: &[Outcome]) -> anyhow::Result<()> {
    println!("  {who}: {outcomes:?}");
    let [allowed, denied] = outcomes else { anyhow::bail!("{who}: {outcomes:?}") };
    ensure!(allowed.is_reached(), "{who} did not reach what it may");
    ensure!(denied.is_blocked(), "{who} reached what it may not");
    Ok(())
}

fn selected() -> Vec<Expectation> {
    vec![
        reached(ALLOWED),
        reached("tcp4://n1.fresh.test:80"),
        blocked(DENIED),
        blocked("udp://198.18.2.1:123"),
    ]
}

fn free() -> Vec<Expectation> {
    vec![reached(ALLOWED), reached(DENIED), reached("udp://198.18.2.1:123")]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egg_for_one_container_is_enforced_from_its_first_packet_and_for_no_other() -> anyhow::Result<()> {
    let Some(test) = Setting::new("containers").await? else { return Ok(()) };
    test.namespace.enforce(&egg("containers: [main, first]"), 0).await?;
    let serve = [PROBE, "serve", "--tcp", "8081", "--udp", "8081"];
    let node = test.cluster.two_nodes()[0];
    let plan = PodPlan::new("shop")
        .label("app", "shop")
        .on(node)
        .init("free-first", &TRIES)
        .init("first", &TRIES)
        .sidecar("sidecar", &serve);
    // Its one container ends at once, and is started again.
    let again = PodPlan::new("again").label("app", "shop").on(node).command(&TRIES);
    test.namespace.create(&again).await?;
    let shop: Pod = test.namespace.start(plan).await?;
    let sidecar = shop.within("sidecar");
    test.namespace.egg("shop").programmed(0, 2).await?;
    ensure_enforced("init container first", &outcomes(&test, "shop", "first", false).await?)?;
    let outside = outcomes(&test, "shop", "free-first", false).await?;
    ensure!(
        outside.iter().all(Outcome::is_reached),
        "an init container that no Egg is for is held back: {outside:?}"
    );
    test.namespace.verify(&[(&shop, selected()), (&sidecar, free())]).await?;

    let pods = test.namespace.api::<core::Pod>();
    // It is started again and again: the status is of an earlier run than the log, which may be empty yet, or be half a report.
    let of_restarted =
        eventually("the container of pod again is started again", Duration::from_secs(60), || async {
            let status = pods.get("again").await?.status.unwrap_or_default();
            let container = status.container_statuses.unwrap_or_default().into_iter().next();
            if container.is_none_or(|it| it.restart_count == 0) {
                return Ok(Err("not yet".to_string()));
            }
            let outcomes = outcomes(&test, "again", "main", false).await;
            Ok(outcomes.map_err(|error| format!("{error:#}")).and_then(|outcomes| match outcomes.len() {
                2 => Ok(outcomes),
                _ => Err(format!("{outcomes:?}")),
            }))
        })
        .await?;
    ensure_enforced("restarted container", &of_restarted)?;
    let programmed = test.namespace.egg("shop").status().await?;
    let message =
        &programmed.conditions.iter().find(|it| it.type_ == "Programmed").context("Programmed")?.message;
    println!("  Programmed: {message}");
    ensure!(message.contains("NoSuchContainer") && message.contains("no container first"), "{message}");

    println!("the Egg is for all containers now, and then for one again");
    let held = shop.hold(ALLOWED).await?;
    test.namespace.enforce(&egg("mode: Enforce"), 2).await?;
    test.namespace.verify(&[(&shop, selected()), (&sidecar, selected())]).await?;
    test.namespace.enforce(&egg("containers: [sidecar]"), 2).await?;
    test.namespace.verify(&[(&shop, free()), (&sidecar, selected())]).await?;
    test.namespace.enforce(&egg("containers: [main]"), 2).await?;
    test.namespace.verify(&[(&shop, selected()), (&sidecar, free())]).await?;
    let report = held.finish().await?;
    ensure!(report.outcome == Outcome::Ok, "the live connection broke: {}", report.outcome);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_containers_are_enforced_from_their_first_packet() -> anyhow::Result<()> {
    let Some(test) = Setting::new("ephemeral").await? else { return Ok(()) };
    test.namespace.enforce(&egg("containers: [debug]"), 0).await?;
    let node = test.cluster.two_nodes()[0];
    let divided: Pod = test.namespace.start(PodPlan::new("divided").label("app", "shop").on(node)).await?;
    test.namespace.verify(&[(&divided, free())]).await?;
    divided.debug("debug", &TRIES).await?;
    ensure_enforced("ephemeral container debug", &outcomes_of_debug(&test, "divided", "debug").await?)?;
    divided.debug("other", &TRIES).await?;
    let other = outcomes_of_debug(&test, "divided", "other").await?;
    println!("  ephemeral container other: {other:?}");
    ensure!(other.iter().all(Outcome::is_reached), "an ephemeral container that no Egg is for is held back");

    println!("the Egg is for all containers now");
    test.namespace.enforce(&egg("mode: Enforce"), 1).await?;
    divided.debug("last", &TRIES).await?;
    ensure_enforced("ephemeral container last", &outcomes_of_debug(&test, "divided", "last").await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_container_of_a_pod_in_the_nodes_network_is_enforced() -> anyhow::Result<()> {
    let Some(test) = Setting::new("containers-host").await? else { return Ok(()) };
    let [node1, node2] = test.cluster.two_nodes();
    let serve = [PROBE, "serve", "--tcp", "18081", "--udp", "18081"];
    let [of_node, allowed, denied] = test
        .namespace
        .start_all([
            PodPlan::new("of-node").label("app", "shop").on(node1).host_network().sidecar("sidecar", &serve),
            PodPlan::new("allowed").on(node2),
            PodPlan::new("denied").on(node2),
        ])
        .await?;
    let sidecar = of_node.within("sidecar");
    let [to_allowed, to_denied] = [&allowed, &denied]
        .map(|pod| [format!("tcp://{}:8080", pod.address4), format!("udp://[{}]:8080", pod.address6)]);
    let free = || to_allowed.iter().chain(&to_denied).cloned().map(reached).collect::<Vec<_>>();
    let enforced = || {
        let denied = to_denied.iter().cloned().map(blocked);
        to_allowed.iter().cloned().map(reached).chain(denied).collect::<Vec<_>>()
    };
    let egg = |container: &str| {
        format!(
            "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {{name: agent}}
spec:
  podSelector: {{matchLabels: {{app: shop}}}}
  containers: [{container}]
  egress: [{{to: [{{cidr: {}/32}}, {{cidr: '{}/128'}}]}}]
",
            allowed.address4, allowed.address6
        )
    };
    test.namespace.enforce(&egg("main"), 1).await?;
    test.namespace.verify(&[(&of_node, enforced()), (&sidecar, free())]).await?;
    test.namespace.enforce(&egg("sidecar"), 1).await?;
    test.namespace.verify(&[(&of_node, free()), (&sidecar, enforced())]).await
}
