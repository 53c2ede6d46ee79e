//! A table that is really full, from the kernel to what somebody with kubectl sees.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::Client;
use kube::api::{Api, ListParams};
use l7egg_crds::{Condition, EggStatus};
use l7egg_e2e::cluster::{EggView, Node, PodPlan, Setting, blocked, eventually, reached};
use l7egg_e2e::probe::Outcome;

const EGG: &str = "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {name: shop}
spec:
  podSelector: {matchLabels: {app: shop}}
  egress: [{to: [{domainNames: ['**.fresh.test']}], ports: [{port: 80}]}]
";
/// A pod may have 104,857 of the table's 131,072 addresses. Each answer fits into a datagram.
const PER_ANSWER: u32 = 70;
const ANSWERS: u32 = 1630;
const LIMIT: Duration = Duration::from_secs(60);
const REASON: &str = "LimitReached";

fn programmed(status: &EggStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == "Programmed")
}

/// Waits until the Egg has the reason.
async fn told(egg: &EggView) -> anyhow::Result<Condition> {
    let is_told = |status: &EggStatus| programmed(status).is_some_and(|it| it.reason == REASON);
    let status = egg.until("programmed, and its limit reached", 1, is_told).await?;
    programmed(&status).cloned().context("a condition")
}

/// Waits for an event about an object of this kind.
async fn event(client: &Client, namespace: &str, kind: &str, name: &str) -> anyhow::Result<String> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let about = format!("involvedObject.kind={kind},involvedObject.name={name},reason={REASON}");
    eventually(&format!("an event {REASON} of {kind} {name}"), LIMIT, || async {
        let events = events.list(&ListParams::default().fields(&about)).await?;
        let message = events.items.into_iter().find_map(|event| event.message);
        Ok(message.ok_or_else(|| "none".to_owned()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_table_is_told_to_whom_it_concerns() -> anyhow::Result<()> {
    let Some(test) = Setting::new("limits").await? else { return Ok(()) };
    let node = test.cluster.two_nodes()[0];
    let plan = |name: &str| PodPlan::new(name).label("app", "shop").on(node);
    let [greedy, modest] = test.namespace.start_all([plan("greedy"), plan("modest")]).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    let inside = nodes.iter().find(|inside| inside.node() == node).context("the node")?;
    let egg = test.namespace.enforce(EGG, 2).await?;
    let metric = "l7egg_agent_limit_reached{limit=\"share\"}";

    let script = format!(
        "i=0; while [ $i -lt {ANSWERS} ]; do echo n$((i * {PER_ANSWER})).many{PER_ANSWER}.ttl600.fresh.test; i=$((i + 1)); done >/names
         dig +short -f /names | wc -l"
    );
    let learned = greedy.exec(&["sh", "-c", &script]).await?;
    println!("  the pod has been told {} addresses", learned.trim());
    ensure!(learned.trim().parse() == Ok(PER_ANSWER * ANSWERS), "{learned}");
    // The agent counts what each pod has every ten seconds.
    let mut index = 0;
    let mut asked = Vec::new();
    while asked.last() != Some(&Outcome::Denied) {
        ensure!(index < 300, "never denied: {asked:?}");
        let report = greedy.connect(&[&format!("tcp6://n{index}.fresh.test:80")]).await?;
        asked.extend(report.into_iter().map(|report| report.outcome));
        index += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("  and is denied what it asks for after that, from the {index}th name on");

    let condition = told(&egg).await?;
    println!("  {} {:?}: {}", condition.reason, condition.status, condition.message);
    for (namespace, kind, name) in [(test.namespace.name.as_str(), "Egg", "shop"), ("default", "Node", node)]
    {
        println!("  event of {kind}: {}", event(test.cluster.client(), namespace, kind, name).await?);
    }
    ensure!(inside.metric(metric).await? == 1.0, "the metric does not say so");
    let status = test.cluster.agent_status(node).await?;
    ensure!(status["limits"].to_string().contains("Share"), "{status}");
    // What it has it keeps, and others learn.
    let expected = vec![reached("tcp://198.18.64.5:80"), blocked("tcp6://n5000.fresh.test:80")];
    test.namespace
        .verify(&[(&greedy, expected), (&modest, vec![reached("tcp6://n5000.fresh.test:80")])])
        .await
}
