//! Eggs that cannot be enforced as written: each says why, and none keeps others from being enforced.

use std::path::Path;

use anyhow::{Context, ensure};
use l7egg_crds::{Condition, ConditionStatus};
use l7egg_e2e::cluster::{PodPlan, Setting, blocked, reached};
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
async fn what_cannot_be_enforced_is_refused_by_name() -> anyhow::Result<()> {
    let Some(test) = Setting::new("features").await? else { return Ok(()) };
    let pod = test.namespace.start(PodPlan::new("shop").label("app", "shop")).await?;
    let select = "podSelector: {matchLabels: {app: shop}}";
    let cases = [
        (
            "containers",
            "shaping",
            format!("{{{select}, containers: [app], shaping: {{egress: {{rate: 20M}}}}, egress: {GOOD}}}"),
        ),
        (
            "rate",
            "shaping.egress.rate",
            format!("{{{select}, shaping: {{egress: {{rate: 20MBps}}}}, egress: {GOOD}}}"),
        ),
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
    let bad = documents("../examples/bad")?;
    for (file, text) in bad.iter().chain(&bad_selectors()) {
        let promised: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# operator: ")).collect();
        match test.namespace.judge(text).await {
            Ok(condition) => {
                println!("  {file}: {}", says(&condition));
                ensure!(condition.status == ConditionStatus::False, "{file} was accepted");
                ensure!(condition.message.len() > 20, "{file}: the message says too little");
                // A condition lists the first problems, and says how many more there are.
                let more = condition
                    .message
                    .rsplit_once("; and ")
                    .and_then(|(_, rest)| rest.split_once(' ')?.0.parse().ok());
                let missing: Vec<_> =
                    promised.iter().filter(|line| !condition.message.contains(**line)).collect();
                ensure!(
                    missing.len() == more.unwrap_or(0),
                    "{file} promises what does not come: {missing:?}"
                );
            }
            Err(error) => match refusal(&error) {
                Some(message) => println!("  {file}: refused by the API server: {message}"),
                None => return Err(error.context(file.clone())),
            },
        }
    }
    println!("among {} such Eggs a good one is enforced", bad.len() + 2);
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
    let examples = documents("../examples")?;
    for (number, (file, text)) in examples.iter().enumerate() {
        let mut object: Value = serde_yaml::from_str(text).with_context(|| file.clone())?;
        // It is about acceptance: an example's ClusterEgg must not reach the whole cluster's pods, nor its nodes.
        if object["kind"] == "ClusterEgg" {
            let name = &test.namespace.name;
            object["metadata"]["name"] = format!("{name}-{number}").into();
            let is_for_nodes = object["spec"].get("nodeSelector").is_some();
            let selector = if is_for_nodes { "nodeSelector" } else { "namespaceSelector" };
            object["spec"][selector] =
                serde_yaml::from_str(&format!("matchLabels: {{l7egg.dev/e2e: {name}}}"))?;
        }
        let condition =
            test.namespace.judge(&serde_yaml::to_string(&object)?).await.with_context(|| file.clone())?;
        println!("  {file}: {}", says(&condition));
        ensure!(condition.status == ConditionStatus::True, "{file} is not accepted");
    }
    ensure!(examples.len() >= 5, "where have the examples gone?");
    Ok(())
}

/// File name and text of every Egg and ClusterEgg in the YAML files of a folder.
fn documents(folder: &str) -> anyhow::Result<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> =
        std::fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut documents = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(file)?;
        let parts = text
            .split("\n---\n")
            .filter(|part| part.contains("\nkind: Egg\n") || part.contains("\nkind: ClusterEgg\n"));
        documents.extend(parts.map(|part| (name.to_string(), part.to_string())));
    }
    Ok(documents)
}

/// Label selectors that Kubernetes itself would refuse, had it known that they were some.
fn bad_selectors() -> [(String, String); 2] {
    [("operator", "{key: a, operator: Near, values: [b]}"), ("values", "{key: a, operator: In}")].map(
        |(name, expression)| {
            let name = format!("selector-{name}");
            let spec = format!("{{podSelector: {{matchExpressions: [{expression}]}}, egress: {GOOD}}}");
            (name.clone(), egg(&name, &spec))
        },
    )
}

/// What the API server says of an object that it does not take.
fn refusal(error: &anyhow::Error) -> Option<&str> {
    match error.downcast_ref()? {
        kube::Error::Api(status) if [400, 422].contains(&status.code) => Some(&status.message),
        _ => None,
    }
}
