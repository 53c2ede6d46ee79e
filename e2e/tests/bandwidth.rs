//! A bandwidth limit of a real kubelet's pod: applied, changed and taken off; or, where the node has no `fq`, told.

use std::time::Duration;

use anyhow::{bail, ensure};
use l7egg_crds::{CONDITION_PROGRAMMED, ConditionStatus, EGRESS_BANDWIDTH_ANNOTATION, EggStatus};
use l7egg_e2e::cluster::{Pod, PodPlan, Setting, blocked, eventually, patience, reached};

const LIMIT: Duration = Duration::from_secs(60);
/// How often a rate is measured, where nothing is emulated.
const TRIES: u32 = 3;

fn egg(shaping: &str) -> String {
    format!(
        "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {{name: limit}}
spec:
  podSelector: {{matchLabels: {{app: shop}}}}
  egress: [{{to: [{{domainNames: ['**.fresh.test']}}], ports: [{{port: 80}}]}}]
  {shaping}
"
    )
}

fn programmed(status: &EggStatus) -> (bool, String) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == CONDITION_PROGRAMMED);
    condition.map_or((false, String::new()), |condition| {
        (condition.status == ConditionStatus::True, condition.message.clone())
    })
}

/// A pod under an Egg with a limit, and what the Egg says: that it holds, or why not.
async fn limited(test: &Setting) -> anyhow::Result<(Pod, EggStatus)> {
    let pod = test.namespace.start(PodPlan::new("shop").label("app", "shop")).await?;
    test.namespace.apply(&egg("shaping: {egress: {rate: 5M}}")).await?;
    let status = eventually("the limit holds, or the Egg says why not", LIMIT, || async {
        let status = test.namespace.egg("limit").status().await?;
        let settled = programmed(&status).0 || status.pods.failed > 0;
        Ok(if settled && status.pods.selected == 1 { Ok(status) } else { Err(format!("{status:?}")) })
    })
    .await?;
    Ok((pod, status))
}

/// What a connection of the pod carries, in bits per second, headers left out.
async fn rate(pod: &Pod, what: &str) -> anyhow::Result<f64> {
    let report = pod.bulk("tcp4://n1.fresh.test:80", 5).await?;
    ensure!(report.outcome.is_reached(), "{report:?}");
    println!("  {what}: {:.2} Mbit/s of payload", report.rate() / 1e6);
    Ok(report.rate())
}

/// At least this, in the best of some tries, as a busy machine takes from it; and less than the most in each of them.
async fn expect(pod: &Pod, what: &str, least: f64, most: f64) -> anyhow::Result<()> {
    let mut best: f64 = 0.0;
    for _ in 0..TRIES * patience() {
        let found = rate(pod, what).await?;
        ensure!(found < most, "{what}: {found} bit/s");
        best = best.max(found);
        if best > least {
            return Ok(());
        }
    }
    bail!("{what}: {best} bit/s is all there is")
}

/// A limit counts headers too, which are 5 % of full packets.
async fn expect_rate(pod: &Pod, limit: f64) -> anyhow::Result<()> {
    expect(pod, &format!("under {} Mbit/s", limit / 1e6), 0.85 * limit, limit).await
}

async fn expect_limit(test: &Setting, limit: &str) -> anyhow::Result<()> {
    eventually(&format!("the Egg says {limit:?}"), LIMIT, || async {
        let status = test.namespace.egg("limit").status().await?;
        let found = programmed(&status).0 && status.egress_limit == limit;
        Ok(if found { Ok(()) } else { Err(format!("{status:?}")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_applied_changed_and_taken_off() -> anyhow::Result<()> {
    let Some(test) = Setting::new("limit").await? else { return Ok(()) };
    let (pod, status) = limited(&test).await?;
    if !programmed(&status).0 {
        println!("skipped: {}", programmed(&status).1);
        return Ok(());
    }
    let of = format!("of Egg {}/limit", test.namespace.name);
    expect_limit(&test, &format!("5M {of}")).await?;
    expect_rate(&pod, 5e6).await?;
    test.namespace.apply(&egg("shaping: {egress: {rate: 8M}}")).await?;
    expect_limit(&test, &format!("8M {of}")).await?;
    expect_rate(&pod, 8e6).await?;
    test.namespace.apply(&egg("")).await?;
    expect_limit(&test, "").await?;
    expect(&pod, "without a limit", 10e6, f64::INFINITY).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_an_egg_is_limited_by_its_annotation() -> anyhow::Result<()> {
    let Some(test) = Setting::new("annotated").await? else { return Ok(()) };
    let plan = PodPlan::new("shop").annotation(EGRESS_BANDWIDTH_ANNOTATION, "5M");
    let pod = test.namespace.start(plan).await?;
    let own = format!("{}/shop", test.namespace.name);
    let found = eventually("the agent has limited the pod, or says why not", LIMIT, || async {
        let status = test.cluster.agent_status(&pod.node).await?;
        let pods = status["pods"].as_array().cloned().unwrap_or_default();
        let found = pods.into_iter().find(|found| found["name"] == *own && found["state"] != "Pending");
        Ok(found.ok_or(status["pods"].to_string()))
    })
    .await?;
    if found["state"] == "Failed" {
        println!("{}", found["message"]);
        ensure!(found["reason"] == "NoFq", "{found}");
        let event = test.namespace.event(&pod, "NotLimited").await?;
        ensure!(event.contains("sch_fq"), "{event}");
        println!("skipped: the node has no fq; an event of the pod says so");
        return Ok(());
    }
    ensure!(found["reason"] == "LimitOnly", "{found}");
    expect_rate(&pod, 5e6).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_fq_says_so_and_enforces_the_rules() -> anyhow::Result<()> {
    let Some(test) = Setting::new("no-fq").await? else { return Ok(()) };
    let (pod, status) = limited(&test).await?;
    let (done, message) = programmed(&status);
    if done {
        println!("skipped: the nodes have fq");
        return Ok(());
    }
    println!("{message}");
    ensure!(
        message.contains("/shop on") && message.contains("NoFq") && message.contains("sch_fq"),
        "{message}"
    );
    let expected = vec![reached("tcp4://n1.fresh.test:80"), blocked("tcp4://n1.fresh.test:443")];
    test.namespace.verify(&[(&pod, expected)]).await?;
    test.namespace.enforce(&egg(""), 1).await?;
    Ok(())
}
