//! Objects that are not even Eggs in form: written while the CRD had no schema, as by an older or newer version.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::api::{Api, PostParams};
use l7egg_crds::Egg;
use l7egg_e2e::cluster::{
    Node, OPERATOR, PodPlan, Setting, Signal, blocked, eventually, reached, signal_all,
};

const UNREADABLE: [(&str, &str); 4] = [
    ("no-spec", "spec: 7"),
    ("rules-as-text", "spec: {podSelector: {}, egress: nonsense}"),
    ("selector-as-list", "spec: {podSelector: [a, b], egress: []}"),
    (
        "of-the-future",
        "spec: {podSelector: {}, mode: Perhaps, egress: [{action: Maybe, to: [{cidr: [1, 2]}]}]}",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_objects_stop_nobody() -> anyhow::Result<()> {
    let Some(test) = Setting::new("unreadable").await? else { return Ok(()) };
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    let pod = test.namespace.start(PodPlan::new("shop").label("app", "shop")).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(test.cluster.client().clone());
    let original = crds.get(Egg::crd_name()).await.context("is l7egg installed?")?;
    put(&crds, without_schema(&original)).await?;
    let written = write_unreadable(&test).await;
    put(&crds, original).await?;
    written?;

    let egg = |address: &str| {
        format!(
            "apiVersion: l7egg.dev/v1alpha1\nkind: Egg\nmetadata: {{name: good}}\nspec:\n  podSelector: {{matchLabels: {{app: shop}}}}\n  egress: [{{to: [{{cidr: {address}/32}}], ports: [{{port: 80}}]}}]\n"
        )
    };
    println!("a good Egg beside them is enforced");
    test.namespace.enforce(&egg("198.18.0.80"), 1).await?;
    test.namespace
        .verify(&[(&pod, vec![reached("tcp://198.18.0.80:80"), blocked("tcp://198.18.0.81:80")])])
        .await?;
    println!("and edited, after an operator has started anew with all of them there");
    signal_all(&nodes, Signal::Kill, OPERATOR).await?;
    test.namespace.enforce(&egg("198.18.0.81"), 1).await?;
    test.namespace
        .verify(&[(&pod, vec![blocked("tcp://198.18.0.80:80"), reached("tcp://198.18.0.81:80")])])
        .await
}

/// Writes them as soon as the API server takes them: it needs a moment for a new schema.
async fn write_unreadable(test: &Setting) -> anyhow::Result<()> {
    for (name, spec) in UNREADABLE {
        let yaml = format!("apiVersion: l7egg.dev/v1alpha1\nkind: Egg\nmetadata: {{name: {name}}}\n{spec}\n");
        let object = eventually(&format!("the API server takes {name}"), Duration::from_secs(20), || async {
            Ok(test.namespace.apply(&yaml).await.map_err(|error| format!("{error:#}")))
        })
        .await?;
        println!("  in the API server: {name}, {}", object.data["spec"]);
        ensure!(
            object.data["spec"] == serde_yaml::from_str::<serde_json::Value>(&yaml)?["spec"],
            "{name} was pruned"
        );
    }
    Ok(())
}

fn without_schema(crd: &CustomResourceDefinition) -> CustomResourceDefinition {
    let mut crd = crd.clone();
    for version in &mut crd.spec.versions {
        version.schema = serde_json::from_value(serde_json::json!({
            "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
        }))
        .ok();
    }
    crd
}

async fn put(crds: &Api<CustomResourceDefinition>, mut crd: CustomResourceDefinition) -> anyhow::Result<()> {
    let name = Egg::crd_name();
    crd.metadata.resource_version = crds.get(name).await?.metadata.resource_version;
    crds.replace(name, &PostParams::default(), &crd).await.context("cannot change the CRD of Eggs")?;
    Ok(())
}
