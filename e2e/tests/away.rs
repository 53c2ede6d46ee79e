//! The API server is away for longer than anybody waits for an answer, and for longer than any watch lasts.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::api::{Api, ListParams};
use l7egg_e2e::cluster::{API_SERVER, Node, Pod, PodPlan, Setting, blocked, eventually, pause_all};
use l7egg_e2e::probe::{HoldReport, LoadReport, Outcome};

/// Watches end within 55 s, and a silent connection is given up after 65.
const AWAY: Duration = Duration::from_secs(75);
/// What pods do meanwhile they do until the API server is back and has had an edit.
const UNTIL: Duration = Duration::from_secs(125);
/// Within this an edit is in force: the operator writes less often while the API server has trouble (8 s), the agent's watch begins
/// again after a pause (10 s), and the lease has to be had again.
const SOON: Duration = Duration::from_secs(30);
const CHANGED: &str = "tcp://198.18.0.81:80";

fn egg(more: &str) -> String {
    format!(
        "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {{name: shop}}
spec:
  podSelector: {{matchLabels: {{app: shop}}}}
  egress: [{{to: [{{domainNames: ['*.fresh.test']}}{more}], ports: [{{port: 80}}]}}]
"
    )
}

/// A connection, and a load of fresh names and of what is not allowed, that nobody has to be asked for: also `exec` is by the API server.
async fn begin(pod: &Pod) -> anyhow::Result<()> {
    let seconds = UNTIL.as_secs();
    let script = format!(
        "(/probe hold tcp4://n950.fresh.test:80 --seconds {seconds} >/hold &
          /probe load --allowed tcp4://n{{}}.fresh.test:80 --denied tcp://198.18.0.80:80 --denied udp://198.18.7.7:123 \
            --rate 20 --seconds {seconds} >/load) >/dev/null 2>&1 </dev/null &"
    );
    pod.exec(&["sh", "-c", &script]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_away_for_longer_than_watches_last() -> anyhow::Result<()> {
    let Some(test) = Setting::new("away").await? else { return Ok(()) };
    let [node1, node2] = test.cluster.two_nodes();
    let plan = |name, node| PodPlan::new(name).label("app", "shop").on(node);
    let pods = test.namespace.start_all([plan("one", node1), plan("two", node2)]).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    test.namespace.enforce(&egg(""), 2).await?;
    test.namespace.verify(&pods.each_ref().map(|pod| (pod, vec![blocked(CHANGED)]))).await?;
    try_join_all(pods.iter().map(begin)).await?;
    let begun = Instant::now();
    if pause_all(&nodes, API_SERVER, AWAY.as_secs() as u32).await? == 0 {
        println!("skipped: no process {API_SERVER} on any node of this cluster");
        return Ok(());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = tokio::time::timeout(Duration::from_secs(5), test.namespace.egg("shop").status()).await;
    ensure!(asked.is_err(), "the API server is not away");
    tokio::time::sleep(AWAY - Duration::from_secs(7)).await;

    let back = eventually("the API server is back", Duration::from_secs(60), || async {
        test.namespace.egg("shop").status().await?;
        Ok(Ok(Instant::now()))
    })
    .await?;
    println!("  the API server was away until {:.0} s from the beginning", (back - begun).as_secs_f64());
    let edited = Instant::now();
    test.namespace.apply(&egg(", {cidr: 198.18.0.81/32}")).await?;
    for pod in &pods {
        eventually("the edit is in force", SOON, || async {
            let outcomes = pod.connect(&[CHANGED]).await?;
            Ok(if outcomes[0].outcome == Outcome::Ok { Ok(()) } else { Err(format!("{outcomes:?}")) })
        })
        .await?;
    }
    println!("  an edit was in force {:.1} s after it was made", edited.elapsed().as_secs_f64());
    ensure!(begun.elapsed() < UNTIL, "the pods' own work ended before");
    tokio::time::sleep((UNTIL + Duration::from_secs(2)).saturating_sub(begun.elapsed())).await;
    for pod in &pods {
        let hold = pod.exec(&["cat", "/hold"]).await?;
        let held: HoldReport = serde_json::from_str(hold.lines().last().context("no report")?)?;
        let load: LoadReport = serde_json::from_str(&pod.exec(&["cat", "/load"]).await?)?;
        println!("  {}: one connection, {} messages: {}; {load:?}", pod.name, held.exchanges, held.outcome);
        ensure!(held.outcome == Outcome::Ok && held.exchanges > 100, "{held:?}");
        ensure!(load.allowed >= 1_125 && load.denied >= 1_125, "{load:?}");
        ensure!(load.allowed_failures == 0 && load.denied_successes == 0, "{load:?}");
    }
    nodes_are_ready(&test).await
}

/// The cluster has thought otherwise for a moment: what comes after this test is not to meet that.
async fn nodes_are_ready(test: &Setting) -> anyhow::Result<()> {
    let nodes: Api<ApiNode> = Api::all(test.cluster.client().clone());
    eventually("all nodes are ready", Duration::from_secs(60), || async {
        let all = nodes.list(&ListParams::default()).await?;
        let is_fine = |node: &ApiNode| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
            !taints
                .is_some_and(|taints| taints.iter().any(|taint| taint.key.starts_with("node.kubernetes.io/")))
        };
        Ok(if all.iter().all(is_fine) { Ok(()) } else { Err("some have taints".to_owned()) })
    })
    .await
}
