//! Services by their names, as programs in a cluster ask for them, through kube-proxy.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, PostParams};
use l7egg_e2e::cluster::{Pod, PodPlan, Setting, blocked, check, eventually, reached};
use serde_json::json;

/// Where the Services' names are resolved by a DNS that knows none, it asks the world.
fn records(name: &str, addresses: &[IpAddr]) -> String {
    let record = |address: &IpAddr| {
        let kind = if address.is_ipv4() { "A" } else { "AAAA" };
        format!("{name}. 30 IN {kind} {address}\n")
    };
    addresses.iter().map(record).collect()
}

/// A Service of the pod of this name, on port 80.
async fn expose(test: &Setting, pod: &str, is_headless: bool) -> anyhow::Result<Vec<IpAddr>> {
    let mut service = json!({
        "metadata": {"name": pod},
        "spec": {
            "selector": {"app": pod},
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"port": 80, "targetPort": Pod::PORT}],
        },
    });
    if is_headless {
        service["spec"]["clusterIP"] = "None".into();
    }
    let services: Api<Service> = test.namespace.api();
    let made = services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let addresses = made.spec.context("a spec")?.cluster_ips.unwrap_or_default();
    Ok(addresses.iter().filter_map(|address| address.parse().ok()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_reached_by_name_and_those_that_are_not_named_are_not() -> anyhow::Result<()> {
    let Some(test) = Setting::new("services").await? else { return Ok(()) };
    let domain = format!("{}.svc.cluster.local", test.namespace.name);
    let [node1, node2] = test.cluster.two_nodes();
    let server = |name: &str, node| PodPlan::new(name).label("app", name).on(node);
    let [shop, free, web, db, other] = test
        .namespace
        .start_all([
            PodPlan::new("shop").label("app", "shop").on(node1).cluster_dns(),
            PodPlan::new("free").on(node1).cluster_dns(),
            server("web", node2),
            server("db", node1),
            server("other", node2),
        ])
        .await?;
    let external = json!({"metadata": {"name": "ext"}, "spec": {"type": "ExternalName", "externalName": "n910.fresh.test"}});
    test.namespace
        .api::<Service>()
        .create(&PostParams::default(), &serde_json::from_value(external)?)
        .await?;
    let [of_web, of_other] = [expose(&test, "web", false).await?, expose(&test, "other", false).await?];
    expose(&test, "db", true).await?;
    let of_db = [db.address4.into(), db.address6.into()];
    let zone = [("web", &of_web[..]), ("other", &of_other), ("db", &of_db)]
        .map(|(name, addresses)| records(&format!("{name}.{domain}"), addresses))
        .concat();
    test.world.set(&format!("{zone}ext.{domain}. 30 IN CNAME n910.fresh.test.\n")).await?;

    let families =
        ["4", "6"].into_iter().filter(|family| of_web.iter().any(|it| it.is_ipv4() == (*family == "4")));
    let [named, not_named]: [Vec<String>; 2] = [
        families
            .clone()
            .flat_map(|family| {
                let pod = Pod::PORT;
                // As most programs have it, by the search path; and in full.
                [
                    format!("tcp{family}://web:80"),
                    format!("tcp{family}://web.{domain}:80"),
                    format!("tcp{family}://db:{pod}"),
                    format!("tcp{family}://ext.{domain}:80"),
                ]
            })
            .collect(),
        families
            .flat_map(|family| {
                [
                    format!("tcp{family}://other:80"),
                    format!("tcp{family}://other.{domain}.:80"),
                    format!("tcp{family}://n911.fresh.test:80"),
                ]
            })
            .collect(),
    ];
    let everything: Vec<_> = named.iter().chain(&not_named).map(reached).collect();
    eventually("kube-proxy and DNS know the Services", Duration::from_secs(30), || async {
        let checked = check(&free, &everything).await?;
        let missing: Vec<String> =
            checked.iter().filter(|it| !it.passed()).map(ToString::to_string).collect();
        Ok(if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) })
    })
    .await?;
    let egg = format!(
        "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {{name: shop}}
spec:
  podSelector: {{matchLabels: {{app: shop}}}}
  egress:
  - to: [{{domainNames: [web.{domain}, ext.{domain}]}}]
    ports: [{{port: 80}}]
  - to: [{{domainNames: [db.{domain}]}}]
    ports: [{{port: {}}}]
",
        Pod::PORT
    );
    test.namespace.enforce(&egg, 1).await?;
    // Not by a Service's name: its pods are other addresses, and those of another one's are nobody's.
    let pods = [&web, &other].into_iter().flat_map(|pod| {
        [format!("tcp://{}:{}", pod.address4, Pod::PORT), format!("tcp://[{}]:{}", pod.address6, Pod::PORT)]
    });
    let expected =
        named.iter().map(reached).chain(not_named.iter().cloned().chain(pods).map(blocked)).collect();
    test.namespace.verify(&[(&shop, expected), (&free, everything)]).await
}
