//! Mode Audit, of an Egg and of all agents: nothing is denied, and all that would be is told.

use std::time::Duration;

use anyhow::{Context, ensure};
use l7egg_e2e::cluster::{Node, Pod, PodPlan, Setting, blocked, eventually, reached};
use l7egg_e2e::probe::Outcome;
use l7egg_e2e::world::fresh_address4;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
/// Allowed; the same name on another port; no name at all.
const TARGETS: [&str; 3] =
    ["tcp4://n900.fresh.test:80", "tcp4://n900.fresh.test:443", "udp://198.18.7.7:123"];
const AUDITED: &str = "l7egg_datapath_total{counter=\"audit_denied\"}";
const DENIED: &str = "l7egg_datapath_total{counter=\"denied\"}";

fn egg(mode: &str) -> String {
    format!(
        "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {{name: shop}}
spec:
  mode: {mode}
  podSelector: {{matchLabels: {{app: shop}}}}
  egress: [{{to: [{{domainNames: [n900.fresh.test]}}], ports: [{{port: 80}}]}}]
"
    )
}

/// A pod, and its node from inside.
async fn prepare(test: &Setting) -> anyhow::Result<(Pod, Node)> {
    let pod = test.namespace.start(PodPlan::new("shop").label("app", "shop")).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    let node = nodes.into_iter().find(|node| node.node() == pod.node).context("the pod's node")?;
    Ok((pod, node))
}

async fn all_is_reached(test: &Setting, pod: &Pod) -> anyhow::Result<()> {
    test.namespace.verify(&[(pod, TARGETS.map(reached).to_vec())]).await
}

async fn all_but_the_first_is_denied(test: &Setting, pod: &Pod) -> anyhow::Result<()> {
    let [allowed, port, unnamed] = TARGETS;
    test.namespace.verify(&[(pod, vec![reached(allowed), blocked(port), blocked(unnamed)])]).await
}

/// Waits until both flows are recorded with this verdict, with all that is known of them, and no other is.
async fn recorded(test: &Setting, pod: &Pod, verdict: &str) -> anyhow::Result<()> {
    let whose = format!("{}/shop", test.namespace.name);
    // Who sent a datagram its packet does not say.
    let expected = json!([
        {
            "pod": whose, "destination": fresh_address4(900), "port": 443, "protocol": "TCP",
            "names": ["n900.fresh.test"], "rule": format!("Egg {whose} spec.egress[0]"), "process": "probe",
        },
        {
            "pod": whose, "destination": "198.18.7.7", "port": 123, "protocol": "UDP",
            "names": [], "rule": null, "process": null,
        },
    ]);
    let flows = eventually(&format!("two flows are recorded: {verdict}"), LIMIT, || async {
        let mut flows = test.cluster.denied(&pod.node, &whose).await?;
        flows.retain(|flow| flow["verdict"] == verdict);
        flows.sort_by_key(|flow| flow["protocol"].to_string());
        let known = |flow: &Value| {
            let process = if flow["protocol"] == "TCP" { &flow["process"]["comm"] } else { &Value::Null };
            json!({
                "pod": flow["pod"], "destination": flow["destination"], "port": flow["port"],
                "protocol": flow["protocol"], "names": flow["names"], "rule": flow["rule"], "process": process,
            })
        };
        let found = Value::from_iter(flows.iter().map(known));
        Ok(if found == expected { Ok(flows) } else { Err(Value::from(flows).to_string()) })
    })
    .await?;
    flows
        .iter()
        .for_each(|flow| println!("  {verdict}: {} {}: {}", flow["destination"], flow["port"], flow["why"]));
    Ok(())
}

/// Waits until a counter is so far. The agent reads them every ten seconds.
async fn counted(node: &Node, counter: &str, least: f64) -> anyhow::Result<()> {
    eventually(&format!("{counter} is {least}"), LIMIT, || async {
        let count = node.metric(counter).await?;
        Ok(if count >= least { Ok(()) } else { Err(count.to_string()) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egg_in_mode_audit_tells_what_it_will_deny() -> anyhow::Result<()> {
    let Some(test) = Setting::new("audit").await? else { return Ok(()) };
    let (pod, node) = prepare(&test).await?;
    test.namespace.audit(&egg("Audit"), 1).await?;
    let before = node.metric(AUDITED).await?;
    all_is_reached(&test, &pod).await?;
    recorded(&test, &pod, "audit").await?;
    counted(&node, AUDITED, before + 2.0).await?;
    let denied = node.metric(DENIED).await?;
    let flows = test.cluster.denied(&pod.node, &format!("{}/shop", test.namespace.name)).await?;
    ensure!(flows.iter().all(|flow| flow["verdict"] != "denied"), "something is denied: {flows:?}");

    let hold = pod.hold(TARGETS[1]).await?;
    test.namespace.enforce(&egg("Enforce"), 1).await?;
    all_but_the_first_is_denied(&test, &pod).await?;
    recorded(&test, &pod, "denied").await?;
    counted(&node, DENIED, denied + 2.0).await?;
    let held = hold.finish().await?;
    println!("  a connection that was audited, and is not allowed: {}", held.outcome);
    ensure!(held.outcome != Outcome::Ok, "the connection lives on");
    // And back: whoever finds that he has forgotten something.
    test.namespace.audit(&egg("Audit"), 1).await?;
    all_is_reached(&test, &pod).await
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_audit_deny_nothing_whatever_eggs_say() -> anyhow::Result<()> {
    let Some(test) = Setting::new("audit-all").await? else { return Ok(()) };
    let (pod, _) = prepare(&test).await?;
    let egg = test.namespace.enforce(&egg("Enforce"), 1).await?;
    all_but_the_first_is_denied(&test, &pod).await?;
    test.cluster.set_agents("L7EGG_AUDIT", "true").await?;
    let audited = async {
        egg.audited(1, 1).await?;
        all_is_reached(&test, &pod).await?;
        recorded(&test, &pod, "audit").await
    }
    .await;
    test.cluster.set_agents("L7EGG_AUDIT", "false").await?;
    audited?;
    egg.programmed(1, 1).await?;
    all_but_the_first_is_denied(&test, &pod).await
}
