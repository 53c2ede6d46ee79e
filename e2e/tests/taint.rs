//! No pod is scheduled to a node whose agent does not work, where nothing would hold it.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use kube::api::Api;
use l7egg_e2e::cluster::{AGENT, Cluster, Node, PodPlan, Setting, Signal, eventually};

const TAINT: &str = "l7egg.dev/agent-not-ready";
const RIGHTS: &str = include_str!("../../manifests/agent-taint.yaml");
const EGG: &str = "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {name: shop}
spec:
  podSelector: {matchLabels: {app: shop}}
  egress: [{to: [{cidr: 203.0.113.0/24}]}]
";
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_agent_is_stopped_gets_no_new_pods() -> anyhow::Result<()> {
    let Some(test) = Setting::new("taint").await? else { return Ok(()) };
    test.namespace.enforce(EGG, 0).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    test.cluster.install(RIGHTS).await?;
    test.cluster.set_operator("L7EGG_AGENT_TAINT", "true").await?;
    let result = stopped(&test, &nodes[0]).await;
    let _ = nodes[0].signal(Signal::Continue, AGENT).await;
    // First without the agent's taint, so that none is left.
    let gone = expect_taint(&test.cluster, &test.cluster.nodes()[0], false).await;
    test.cluster.set_operator("L7EGG_AGENT_TAINT", "false").await?;
    result.and(gone)
}

async fn stopped(test: &Setting, first: &Node) -> anyhow::Result<()> {
    for round in 0.. {
        match one_round(test, first, &format!("shop-{round}")).await? {
            Round::Counts => return Ok(()),
            Round::AgentIsNew => ensure!(round < 3, "the agent is restarted before it was looked at"),
        }
        println!("  once more: the agent was restarted meanwhile");
    }
    Ok(())
}

enum Round {
    Counts,
    /// An agent that does not answer is restarted after half a minute, and then is ready.
    AgentIsNew,
}

async fn one_round(test: &Setting, first: &Node, name: &str) -> anyhow::Result<Round> {
    let node = &test.cluster.nodes()[0];
    expect_taint(&test.cluster, node, false).await?;
    let restarts = test.cluster.agent_restarts(node).await?;
    ensure!(first.signal(Signal::Stop, AGENT).await? > 0, "no agent on {node}");
    if let Err(error) = expect_taint(&test.cluster, node, true).await {
        let is_new = test.cluster.agent_restarts(node).await? != restarts;
        return if is_new { Ok(Round::AgentIsNew) } else { Err(error) };
    }
    let plan = PodPlan::new(name).label("app", "shop").scheduled_to(node);
    test.namespace.create(&plan.command(&["/probe", "watch", "udp://198.18.7.7:123"])).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pod = test.namespace.api::<Pod>().get(name).await?;
    // The agent that is there by now may not have been asked for its status yet.
    let is_new = test.cluster.agent_restarts(node).await? != restarts;
    let waits = pod.spec.is_some_and(|spec| spec.node_name.is_none());
    first.signal(Signal::Continue, AGENT).await?;
    let watched = test.namespace.until_denied(name, LIMIT).await?;
    println!("  the agent goes on, the pod starts; {} packets left", watched.reached);
    ensure!(watched.reached == 0, "{watched:?}");
    if is_new || test.cluster.agent_restarts(node).await? != restarts {
        test.namespace.kill(name).await?;
        return Ok(Round::AgentIsNew);
    }
    ensure!(waits, "the pod was scheduled to {node}");
    println!("  the pod waited while the agent of {node} was stopped");
    Ok(Round::Counts)
}

async fn expect_taint(cluster: &Cluster, node: &str, expected: bool) -> anyhow::Result<()> {
    let nodes: Api<ApiNode> = Api::all(cluster.client().clone());
    eventually(&format!("{node} has the taint: {expected}"), LIMIT, || async {
        let taints = nodes.get(node).await?.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let found = taints.iter().any(|taint| taint.key == TAINT);
        Ok(if found == expected { Ok(()) } else { Err(format!("{taints:?}")) })
    })
    .await
}
