//! Eggs that cannot be enforced as written: each says why, and none keeps others from being enforced.

use std::path::Path;

use anyhow::{Context, ensure};
use l7egg_crds::{Condition, ConditionStatus};
use l7egg_e2e::cluster::{PodPlan, Setting, blocked, reached};
use serde::Deserialize;
use serde_yaml::Value;

const GOOD: &str = "[{to: [{cidr: 198.18.0.80/32}], ports: [{port: 80}]}]";

fn egg(name: &str, spec: &str) -> String {
    format!("apiVersion: l7egg.dev/v1alpha1\nkind: Egg\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn good(name: &str, app: &str) -> String {
    egg(name, &format!("{{podSelector: {{matchLabels: {{app: {app}}}}}, egress: {GOOD}}}"))
}

fn says(condition: &Condition) -> String {
    format!("Accepted={:?} {}: {}", condition.status, condition.reason, condition.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn features_to_come_are_refused_by_name() -> anyhow::Result<()> {
    let Some(test) = Setting::new("features").await? else { return Ok(()) };
    let pod = test.namespace.start(PodPlan::new("shop").label("app", "shop")).await?;
    let select = "podSelector: {matchLabels: {app: shop}}";
    let cases = [
        ("audit", "mode", format!("{{{select}, mode: Audit, egress: {GOOD}}}")),
        ("containers", "containers", format!("{{{select}, containers: [app], egress: {GOOD}}}")),
        (
            "regex",
            "domainRegex",
            format!("{{{select}, egress: [{{to: [{{domainRegex: ['(de|en)[.]test']}}]}}]}}"),
        ),
        (
            "suffixes",
            "domainSuffixes",
            format!("{{{select}, egress: [{{to: [{{domainSuffixes: [ome.test]}}]}}]}}"),
        ),
        (
            "star-inside",
            "domainNames[0]",
            format!("{{{select}, egress: [{{to: [{{domainNames: ['a*.test']}}]}}]}}"),
        ),
        (
            "refuse",
            "refuseUnmatched",
            format!("{{{select}, dns: {{refuseUnmatched: true}}, egress: {GOOD}}}"),
        ),
        ("shaping", "shaping", format!("{{{select}, shaping: {{egress: {{rate: 20M}}}}, egress: {GOOD}}}")),
    ];
    for (name, field, spec) in cases {
        let condition =
            test.namespace.judge(&egg(name, &spec)).await.with_context(|| format!("Egg {name}"))?;
        println!("  {name}: {}", says(&condition));
        ensure!(condition.status == ConditionStatus::False, "{name} was accepted");
        ensure!(
            !condition.reason.is_empty() && condition.message.contains(field),
            "{name}: {field} is not named"
        );
    }
    // An Egg that was never accepted selects nobody.
    test.namespace.verify(&[(&pod, vec![reached("tcp://198.18.0.81:80")])]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_says_what_to_write_and_stops_nobody() -> anyhow::Result<()> {
    let Some(test) = Setting::new("nonsense").await? else { return Ok(()) };
    let pod = test.namespace.start(PodPlan::new("shop").label("app", "shop")).await?;
    let to = |to: &str| format!("{{podSelector: {{}}, egress: [{{to: [{to}]}}]}}");
    let ports = |ports: &str| {
        format!("{{podSelector: {{}}, egress: [{{to: [{{cidr: 10.0.0.0/8}}], ports: [{ports}]}}]}}")
    };
    let cases = [
        ("no-cidr", to("{cidr: 10.0.0.0/33}")),
        ("host-bits", to("{cidr: a.b.c.d/8}")),
        ("except-outside", to("{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}")),
        ("except-family", to("{cidr: 10.0.0.0/8, except: ['2001:db8::/48']}")),
        ("except-alone", to("{except: [10.0.0.0/16]}")),
        ("mixed", to("{cidr: 10.0.0.0/8, domainNames: [a.test]}")),
        ("empty-destination", to("{}")),
        ("long-label", to(&format!("{{domainNames: [{}.test]}}", "a".repeat(64)))),
        ("pattern", to("{domainNames: ['***.test']}")),
        ("upside-down", ports("{port: 443, endPort: 80}")),
        ("end-alone", ports("{endPort: 80}")),
        ("icmp-port", ports("{protocol: ICMP, port: 8}")),
        (
            "selector",
            format!(
                "{{podSelector: {{matchExpressions: [{{key: a, operator: Near, values: [b]}}]}}, egress: {GOOD}}}"
            ),
        ),
        (
            "selector-values",
            format!("{{podSelector: {{matchExpressions: [{{key: a, operator: In}}]}}, egress: {GOOD}}}"),
        ),
    ];
    for (name, spec) in &cases {
        match test.namespace.judge(&egg(name, spec)).await {
            Ok(condition) => {
                println!("  {name}: {}", says(&condition));
                ensure!(condition.status == ConditionStatus::False, "{name} was accepted");
                ensure!(condition.message.len() > 20, "{name}: the message says too little");
            }
            Err(error) if is_refusal(&error) => println!("  {name}: refused by the API server: {error:#}"),
            Err(error) => return Err(error.context(format!("Egg {name}"))),
        }
    }
    println!("among {} such Eggs a good one is enforced", cases.len());
    test.namespace.enforce(&good("good", "shop"), 1).await?;
    let as_good = || vec![reached("tcp://198.18.0.80:80"), blocked("tcp://198.18.0.81:80")];
    test.namespace.verify(&[(&pod, as_good())]).await?;
    println!("the good one is edited into nonsense: what was enforced stays");
    let nonsense = "{podSelector: {matchLabels: {app: shop}}, egress: [{to: [{cidr: 198.18.0.0/99}]}]}";
    let condition = test.namespace.judge(&egg("good", nonsense)).await?;
    println!("  {}", says(&condition));
    ensure!(condition.status == ConditionStatus::False);
    test.namespace.verify(&[(&pod, as_good())]).await?;
    println!("and repaired, with another address");
    test.namespace.enforce(&good("good", "shop").replace(".80/32", ".81/32"), 1).await?;
    test.namespace
        .verify(&[(&pod, vec![blocked("tcp://198.18.0.80:80"), reached("tcp://198.18.0.81:80")])])
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_accepted() -> anyhow::Result<()> {
    let Some(test) = Setting::new("examples").await? else { return Ok(()) };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    let mut files: Vec<_> =
        std::fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let text = std::fs::read_to_string(file)?;
        for document in serde_yaml::Deserializer::from_str(&text) {
            let mut object = Value::deserialize(document).with_context(|| format!("{}", file.display()))?;
            if !["Egg", "ClusterEgg"].contains(&object["kind"].as_str().unwrap_or_default()) {
                continue;
            }
            // It is about acceptance: an example's ClusterEgg must not reach the pods of the whole cluster.
            if object["kind"] == "ClusterEgg" && object["spec"]["nodeSelector"].is_null() {
                let name = &test.namespace.name;
                object["metadata"]["name"] = format!("{name}-{count}").into();
                object["spec"]["namespaceSelector"] =
                    serde_yaml::from_str(&format!("matchLabels: {{l7egg.dev/e2e: {name}}}"))?;
            }
            let condition = test
                .namespace
                .judge(&serde_yaml::to_string(&object)?)
                .await
                .with_context(|| format!("{}", file.display()))?;
            println!("  {}: {}", file.file_name().unwrap_or_default().to_string_lossy(), says(&condition));
            ensure!(condition.status == ConditionStatus::True, "{} is not accepted", file.display());
            count += 1;
        }
    }
    ensure!(count > 0, "no Egg in {}", folder.display());
    Ok(())
}

fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if [400, 422].contains(&status.code))
}
