//! A pod that is ending keeps what is in force for it until its processes have ended, whatever goes before it.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, DeleteParams};
use l7egg_e2e::cluster::{Pod, PodPlan, Setting};
use l7egg_e2e::probe::now_micros;

const EGG: &str = "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {name: shop}
spec:
  podSelector: {matchLabels: {app: shop}}
  egress: [{to: [{cidr: 203.0.113.0/24}]}]
";
const TARGET: &str = "udp://198.18.7.7:123";
/// What a pod has to end, of which it uses every second: nobody has told it to end at SIGTERM.
const GRACE: u32 = 20;
const LIMIT: Duration = Duration::from_secs(60);

/// A pod that tries to reach what its Egg denies.
async fn denied(test: &Setting) -> anyhow::Result<Pod> {
    let plan = PodPlan::new("shop").label("app", "shop").grace(GRACE);
    test.namespace.create(&plan.command(&["/probe", "watch", TARGET])).await?;
    let pod = test.namespace.running("shop").await?;
    test.namespace.enforce(EGG, 1).await?;
    test.namespace.until_denied("shop", LIMIT).await?;
    Ok(pod)
}

/// Nothing has left a pod since, for most of its grace.
async fn expect_denied(pod: &Pod, since: u64) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(u64::from(GRACE) / 2)).await;
    let changes = pod.changes().await?;
    println!("  {:.1} s after it was told to end: {:?}", (now_micros() - since) as f64 / 1e6, changes.last());
    let escaped = changes.iter().find(|change| change.at > since && change.outcome.is_reached());
    ensure!(escaped.is_none(), "something left the pod that was ending: {changes:?}");
    ensure!(changes.last().is_some_and(|change| !change.outcome.is_reached()), "{changes:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egg_that_goes_before_its_pod_frees_it_no_more() -> anyhow::Result<()> {
    let Some(test) = Setting::new("ending").await? else { return Ok(()) };
    let pod = denied(&test).await?;
    let since = now_micros();
    test.namespace.api::<core::Pod>().delete("shop", &DeleteParams::default()).await?;
    test.namespace.egg("shop").delete().await?;
    expect_denied(&pod, since).await
}

/// CVE-2024-7598 is this of NetworkPolicies.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_ends_frees_none_of_its_pods() -> anyhow::Result<()> {
    let Some(test) = Setting::new("ending-namespace").await? else { return Ok(()) };
    let pod = denied(&test).await?;
    let since = now_micros();
    let namespaces: Api<core::Namespace> = Api::all(test.cluster.client().clone());
    namespaces.delete(&test.namespace.name, &DeleteParams::background()).await?;
    expect_denied(&pod, since).await
}

/// As a cluster may have for every pod.
#[tokio::test(flavor = "multi_thread")]
async fn what_its_egg_denied_no_other_egg_frees_when_the_namespace_ends() -> anyhow::Result<()> {
    let Some(test) = Setting::new("ending-baseline").await? else { return Ok(()) };
    let name = &test.namespace.name;
    let baseline = format!(
        "apiVersion: l7egg.dev/v1alpha1
kind: ClusterEgg
metadata: {{name: {name}}}
spec:
  namespaceSelector: {{matchLabels: {{l7egg.dev/e2e: {name}}}}}
  podSelector: {{}}
  egress: [{{to: [{{cidr: 0.0.0.0/0}}, {{cidr: '::/0'}}]}}]
"
    );
    let plan = PodPlan::new("shop").label("app", "shop").grace(GRACE);
    test.namespace.create(&plan.command(&["/probe", "watch", TARGET])).await?;
    let pod = test.namespace.running("shop").await?;
    test.namespace.enforce(&baseline, 1).await?;
    let denying = EGG.replace("cidr: 203.0.113.0/24}]}", "cidr: 198.18.0.0/15}], action: Deny}");
    test.namespace.enforce(&denying, 1).await?;
    test.namespace.until_denied("shop", LIMIT).await?;
    let since = now_micros();
    let namespaces: Api<core::Namespace> = Api::all(test.cluster.client().clone());
    namespaces.delete(name, &DeleteParams::background()).await?;
    expect_denied(&pod, since).await
}
