//! No window: nothing leaves a pod before its Egg is enforced, also where the operator or the API server is slow or away.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::{join_all, try_join_all};
use l7egg_crds::SYSTEM_NAMESPACE;
use l7egg_e2e::cluster::{
    AGENT, API_SERVER, Node, OPERATOR, PodPlan, Setting, Signal, Watched, eventually, pause_all, reached,
    signal_all,
};
use l7egg_e2e::probe::Change;

const EGG: &str = "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {name: shop}
spec:
  podSelector: {matchLabels: {app: shop}}
  egress: [{to: [{cidr: 203.0.113.0/24}]}]
";
const TARGET: &str = "udp://198.18.7.7:123";
/// So long after the first pod the operator is back at the latest, if a batch is to count: what follows takes its time as well, and a
/// pod that is held for longer than the bound is rightly let go.
const IN_TIME: Duration = Duration::from_secs(7);
const BATCHES: usize = 5;
/// How many more there are at most, in the place of those that took too long.
const MORE_BATCHES: usize = 5;
const BATCH: usize = 10;
/// How often the API server goes away at most.
const ROUNDS: u32 = 8;
/// Less than `--hold-for`, by what it takes to be back.
const AWAY: Duration = Duration::from_secs(4);
/// The default of `--hold-for`.
const BOUND: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(60);

fn watcher(name: &str, node: &str) -> PodPlan {
    PodPlan::new(name).label("app", "shop").on(node).command(&["/probe", "watch", TARGET])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_away_while_pods_start() -> anyhow::Result<()> {
    let Some(test) = Setting::new("hold").await? else { return Ok(()) };
    test.namespace.enforce(EGG, 0).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    let (mut escaped, mut waited, mut counted) = (0, Vec::new(), 0);
    for batch in 0.. {
        if counted == BATCHES {
            break;
        }
        ensure!(batch < BATCHES + MORE_BATCHES, "the operator is never back within {} s", IN_TIME.as_secs());
        signal_all(&nodes, Signal::Stop, OPERATOR).await?;
        let stopped = Instant::now();
        let names: Vec<String> = (0..BATCH).map(|number| format!("shop-{batch}-{number}")).collect();
        let plans = names
            .iter()
            .enumerate()
            .map(|(number, name)| watcher(name, test.cluster.two_nodes()[number % 2]));
        let plans: Vec<PodPlan> = plans.collect();
        let first_created = Instant::now();
        try_join_all(plans.iter().map(|plan| test.namespace.create(plan))).await?;
        tokio::time::sleep(AWAY.saturating_sub(stopped.elapsed())).await;
        signal_all(&nodes, Signal::Continue, OPERATOR).await?;
        let held_for = first_created.elapsed();
        let watched = try_join_all(names.iter().map(|name| test.namespace.until_denied(name, LIMIT))).await?;
        for (plan, pod) in plans.iter().zip(&watched).filter(|(_, pod)| pod.reached > 0) {
            let events = test.namespace.events(&test.namespace.running(plan.name()).await?).await?;
            println!("  packets of pod {} left: {:?}; its events: {events:?}", plan.name(), pod.changes);
        }
        if held_for <= IN_TIME {
            counted += 1;
            escaped += watched.iter().map(|pod| pod.reached).sum::<u64>();
            waited.extend(watched.iter().map(|pod: &Watched| pod.denied.at.saturating_sub(pod.first.at)));
        } else {
            println!(
                "  once more: the operator was back {:.1} s after the first pod",
                held_for.as_secs_f64()
            );
        }
        try_join_all(names.iter().map(|name| test.namespace.kill(name))).await?;
    }
    waited.sort_unstable();
    println!(
        "  {} pods began while the operator was stopped for {} s; they tried for {:.1} s (median) before they were judged",
        waited.len(),
        AWAY.as_secs(),
        waited[waited.len() / 2] as f64 / 1e6
    );
    println!("  {escaped} packets of {} pods left before their Egg was enforced", BATCHES * BATCH);
    ensure!(escaped == 0, "{escaped} packets left");
    ensure!(waited[waited.len() - 1] > 0, "no pod tried anything while the operator was stopped");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_pod_is_let_go_in_the_end_and_all_is_told() -> anyhow::Result<()> {
    let Some(test) = Setting::new("hold-bound").await? else { return Ok(()) };
    test.namespace.enforce(EGG, 0).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    let node = test.cluster.two_nodes()[0];
    signal_all(&nodes, Signal::Stop, OPERATOR).await?;
    let result = let_go(&test, node).await;
    signal_all(&nodes, Signal::Continue, OPERATOR).await?;
    result?;
    println!("  the operator is back, and the pod enforced");
    test.namespace.until_denied("shop", LIMIT).await?;
    Ok(())
}

async fn let_go(test: &Setting, node: &str) -> anyhow::Result<()> {
    // Nor is a pod touched that no Egg selects.
    let (held, free) = (watcher("shop", node), PodPlan::new("free").on(node));
    let created = Instant::now();
    try_join_all([&held, &free].map(|plan| test.namespace.create(plan))).await?;
    let own = format!("{}/shop", test.namespace.name);
    let status = eventually("the agent says that it holds the pod", LIMIT, || async {
        let status = test.cluster.agent_status(node).await?;
        let pods = status["pods"].as_array().cloned().unwrap_or_default();
        Ok(pods
            .into_iter()
            .find(|pod| pod["name"] == *own && pod["reason"] == "Held")
            .ok_or(status["pods"].to_string()))
    })
    .await?;
    println!("  {}", status["message"].as_str().unwrap_or_default());
    let free = test.namespace.running("free").await?;
    test.namespace
        .verify(&[(&free, vec![reached("udp://198.18.7.7:123"), reached("tcp://198.18.0.80:80")])])
        .await?;

    let pod = test.namespace.running("shop").await?;
    let reached = eventually("the pod is let go", LIMIT, || async {
        let changes = pod.changes().await?;
        let reached = changes.iter().find(|change| change.outcome.is_reached());
        Ok(reached.cloned().ok_or(format!("{changes:?}")))
    })
    .await?;
    let after = created.elapsed();
    println!("  let go {:.1} s after it was created, at its try {}", after.as_secs_f64(), reached.tries);
    ensure!(after >= BOUND - Duration::from_secs(1), "let go too soon");
    for reason in ["Held", "LetGo"] {
        println!("  event {reason}: {}", test.namespace.event(&pod, reason).await?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_agents_wait_for_the_operators_word() -> anyhow::Result<()> {
    let Some(test) = Setting::new("hold-strict").await? else { return Ok(()) };
    test.namespace.enforce(EGG, 0).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    test.cluster.set_agents("L7EGG_STRICT", "true").await?;
    let result = strict(&test, &nodes).await;
    let _ = signal_all(&nodes, Signal::Continue, OPERATOR).await;
    test.cluster.set_agents("L7EGG_STRICT", "false").await?;
    result
}

async fn strict(test: &Setting, nodes: &[Node]) -> anyhow::Result<()> {
    let node = test.cluster.two_nodes()[0];
    signal_all(nodes, Signal::Stop, OPERATOR).await?;
    test.namespace.create(&watcher("shop", node)).await?;
    // One that no Egg selects starts as ever.
    let free = test.namespace.start(PodPlan::new("free").on(node)).await?;
    test.namespace.verify(&[(&free, vec![reached("tcp://198.18.0.80:80")])]).await?;
    tokio::time::sleep(BOUND + Duration::from_secs(5)).await;
    let pod = test.namespace.running("shop").await?;
    let changes = pod.changes().await?;
    ensure!(!changes.is_empty() && changes.iter().all(|change| !change.outcome.is_reached()), "{changes:?}");
    println!("  held for more than {} s", BOUND.as_secs() + 5);
    // A new operator is no pod that is held.
    let deleted = test.cluster.delete_product_pods().await?;
    let watched = test.namespace.until_denied("shop", LIMIT).await?;
    println!("  all {deleted} pods of {SYSTEM_NAMESPACE} were replaced; {} packets left", watched.reached);
    ensure!(watched.reached == 0, "{watched:?}");
    gate(test, nodes).await
}

/// Pods that start while no agent answers.
async fn gate(test: &Setting, nodes: &[Node]) -> anyhow::Result<()> {
    let node = test.cluster.two_nodes()[0];
    for round in 0.. {
        let (late, free) = (format!("late-{round}"), format!("late-free-{round}"));
        let restarts = test.cluster.agent_restarts(node).await?;
        signal_all(nodes, Signal::Stop, AGENT).await?;
        let started = start_without_agents(test, node, [&late, &free]).await;
        signal_all(nodes, Signal::Continue, AGENT).await?;
        let changes = started?;
        let watched = test.namespace.until_denied(&late, LIMIT).await?;
        ensure!(watched.reached == 0, "{watched:?}");
        works(test, &free).await?;
        // An agent that does not answer is restarted after half a minute, and then does what the stopped one did not.
        if test.cluster.agent_restarts(node).await? == restarts {
            let outcomes = changes.iter().flatten().map(|change| &change.outcome);
            ensure!(outcomes.into_iter().all(|outcome| !outcome.is_reached()), "{changes:?}");
            println!("  two pods that started while the agents were stopped waited for them");
            return Ok(());
        }
        ensure!(round < 3, "agents are restarted before the pods have started");
        println!("  once more: the agent was restarted meanwhile");
    }
    Ok(())
}

async fn works(test: &Setting, pod: &str) -> anyhow::Result<()> {
    let free = test.namespace.running(pod).await?;
    eventually("the pod that no Egg selects works", LIMIT, || async {
        let changes = free.changes().await?;
        Ok(changes
            .iter()
            .any(|change| change.outcome.is_reached())
            .then_some(())
            .ok_or(format!("{changes:?}")))
    })
    .await
}

/// Starts two pods, of which an Egg selects the first; what they see in some seconds.
async fn start_without_agents(
    test: &Setting,
    node: &str,
    [late, free]: [&str; 2],
) -> anyhow::Result<[Vec<Change>; 2]> {
    let plans = [watcher(late, node), PodPlan::new(free).on(node).command(&["/probe", "watch", TARGET])];
    try_join_all(plans.iter().map(|plan| test.namespace.create(plan))).await?;
    let pods = try_join_all([late, free].map(|name| {
        eventually("the pod tries", LIMIT, move || async move {
            let pod = test.namespace.running(name).await?;
            Ok(if pod.changes().await?.is_empty() { Err("nothing yet".to_owned()) } else { Ok(pod) })
        })
    }))
    .await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok([pods[0].changes().await?, pods[1].changes().await?])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_goes_away_while_pods_start() -> anyhow::Result<()> {
    let Some(test) = Setting::new("hold-api").await? else { return Ok(()) };
    test.namespace.enforce(EGG, 0).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    let (mut escaped, mut in_time, mut pods) = (0, 0, 0);
    let mut first_after = Duration::from_millis(150);
    // Some are to come before the API server stops, and have no assignment yet when it does; the others show that it did stop.
    for round in 0..ROUNDS {
        if round >= 3 && in_time > 0 && in_time < pods {
            break;
        }
        if pause_all(&nodes, API_SERVER, AWAY.as_secs() as u32).await? == 0 {
            println!("skipped: no process {API_SERVER} on any node of this cluster");
            return Ok(());
        }
        // It stops half a second from when it was told, which was said a moment later.
        tokio::time::sleep(first_after).await;
        let names: Vec<String> = (0..6).map(|number| format!("shop-{round}-{number}")).collect();
        let created = names.iter().enumerate().map(|(number, name)| {
            let plan = watcher(name, test.cluster.two_nodes()[number % 2]);
            let namespace = &test.namespace;
            async move {
                tokio::time::sleep(Duration::from_millis(100 * number as u64)).await;
                let start = Instant::now();
                let created = namespace.create(&plan).await;
                created.map(|()| start.elapsed() < Duration::from_secs(1))
            }
        });
        let mut before = 0;
        for result in join_all(created).await {
            before += usize::from(result.context("creating a pod")?);
        }
        (in_time, pods) = (in_time + before, pods + names.len());
        // How long a moment is differs between machines.
        match before {
            0 => first_after = first_after.saturating_sub(Duration::from_millis(150)),
            all if all == names.len() => first_after += Duration::from_millis(250),
            _ => {}
        }
        for name in &names {
            escaped += test.namespace.until_denied(name, LIMIT).await?.reached;
            test.namespace.kill(name).await?;
        }
    }
    let seconds = AWAY.as_secs();
    println!("  {in_time} of {pods} pods were created just before the API server stopped for {seconds} s");
    println!("  {escaped} packets left before their Egg was enforced");
    ensure!(escaped == 0, "{escaped} packets left");
    ensure!(in_time > 0 && in_time < pods, "the API server never stopped between two pods");
    Ok(())
}
