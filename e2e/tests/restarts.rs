//! Whatever dies of l7egg, enforcement stays, live connections live, and what changed meanwhile is made up for.

use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use l7egg_e2e::cluster::{
    AGENT, Expectation, Node, OPERATOR, Pod, PodPlan, Setting, Signal, blocked, reached, signal_all,
};
use l7egg_e2e::probe::Outcome;

#[tokio::test(flavor = "multi_thread")]
async fn the_node_agents_are_killed() -> anyhow::Result<()> {
    survive("agent", Victim::Process(AGENT)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_killed() -> anyhow::Result<()> {
    survive("operator", Victim::Process(OPERATOR)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_of_l7egg_is_deleted() -> anyhow::Result<()> {
    survive("pods", Victim::Pods).await
}

enum Victim {
    /// SIGKILL to every process of this name.
    Process(&'static str),
    /// All pods of the product, at once.
    Pods,
}

fn egg(addresses: &[&str]) -> String {
    let cidrs: Vec<String> = addresses.iter().map(|address| format!("{{cidr: '{address}'}}")).collect();
    format!(
        "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {{name: shop}}
spec:
  podSelector: {{matchLabels: {{app: shop}}}}
  egress:
  - to: [{{domainNames: ['**.fresh.test']}}, {}]
    ports: [{{port: 80}}]
",
        cidrs.join(", ")
    )
}

fn expected(names: [u32; 2], changed: bool) -> Vec<Expectation> {
    let [first, second] = names;
    let other = if changed { reached } else { blocked };
    vec![
        reached(format!("tcp4://n{first}.fresh.test:80")),
        reached(format!("tcp6://n{second}.fresh.test:80")),
        reached("tcp://198.18.0.80:80"),
        reached("tcp://[2001:db8:18::80]:80"),
        blocked("tcp://198.18.0.80:443"),
        blocked("tcp://[2001:db8:18::80]:443"),
        other("tcp://198.18.0.81:80"),
        other("tcp://[2001:db8:18::81]:80"),
        blocked("udp4://n1.fresh.test:123"),
    ]
}

async fn survive(prefix: &str, victim: Victim) -> anyhow::Result<()> {
    let Some(test) = Setting::new(&format!("kill-{prefix}")).await? else { return Ok(()) };
    let [node1, node2] = test.cluster.two_nodes();
    let plan = |name, node| PodPlan::new(name).label("app", "shop").on(node);
    let pods: [Pod; 2] = test.namespace.start_all([plan("one", node1), plan("two", node2)]).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    let before = ["198.18.0.80/32", "2001:db8:18::80/128"];
    test.namespace.enforce(&egg(&before), 2).await?;
    let verify = async |names, changed| {
        test.namespace.verify(&pods.each_ref().map(|pod| (pod, expected(names, changed)))).await
    };
    verify([800, 801], false).await?;

    let connections = ["tcp4://n802.fresh.test:80", "tcp6://n803.fresh.test:80", "tcp://198.18.0.80:80"];
    let holds = pods.iter().flat_map(|pod| connections.map(|target| pod.hold(target)));
    let holds = try_join_all(holds).await?;
    println!("{} connections are live", holds.len());

    match victim {
        Victim::Process(name) => {
            let killed = signal_all(&nodes, Signal::Kill, name).await?;
            println!("{killed} processes {name} were killed");
        }
        Victim::Pods => println!("{} pods were deleted", test.cluster.delete_product_pods().await?),
    }
    println!("at once, and for three seconds more, all is as it was, and new names work");
    verify([804, 805], false).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    verify([806, 807], false).await?;
    println!("the Egg is edited, and a pod comes");
    let third = PodPlan::new("three").label("app", "shop").on(node1);
    test.namespace.create(&third).await?;
    let after = [&before[..], &["198.18.0.81/32", "2001:db8:18::81/128"]].concat();
    test.namespace.enforce(&egg(&after), 3).await?;
    verify([808, 809], true).await?;
    let third = test.namespace.running("three").await?;
    test.namespace.verify(&[(&third, expected([810, 811], true))]).await?;

    for hold in holds {
        let report = hold.finish().await?;
        println!(
            "  {}: {} after {} messages in {:.1} s, the slowest echo took {:.1} ms",
            report.target,
            report.outcome,
            report.exchanges,
            report.lasted as f64 / 1e6,
            report.longest as f64 / 1e3
        );
        ensure!(report.outcome == Outcome::Ok, "the live connection to {} broke", report.target);
    }
    Ok(())
}
