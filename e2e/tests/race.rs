//! No race between a DNS answer and the connection that follows it.

use anyhow::ensure;
use futures::future::try_join_all;
use l7egg_e2e::cluster::{AGENT, Node, Pod, PodPlan, Setting, Signal, blocked, signal_all};

const EGG: &str = "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {name: fresh}
spec:
  podSelector: {matchLabels: {app: racer}}
  egress:
  - to: [{domainNames: ['**.fresh.test']}]
    ports: [{protocol: TCP, port: 80}]
";
/// Of each of the two pods, so 10,000 together. Each name is connected to over IPv4 and over IPv6.
const NAMES: u32 = 5000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_fresh_names() -> anyhow::Result<()> {
    let Some(test) = Setting::new("race").await? else { return Ok(()) };
    let pods = racers(&test).await?;
    race(&test, &pods).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_fresh_names_while_the_agents_are_stopped() -> anyhow::Result<()> {
    let Some(test) = Setting::new("race-stopped").await? else { return Ok(()) };
    let pods = racers(&test).await?;
    let nodes = Node::all(&test.cluster, &test.namespace).await?;
    let agents = signal_all(&nodes, Signal::Stop, AGENT).await?;
    println!("  {agents} node agents are stopped");
    let result = race(&test, &pods).await;
    // Its liveness probe may have killed an agent meanwhile, but a new one needs no signal.
    for node in &nodes {
        node.signal(Signal::Continue, AGENT).await?;
    }
    result
}

async fn racers(test: &Setting) -> anyhow::Result<[Pod; 2]> {
    let [node1, node2] = test.cluster.two_nodes();
    let plan = |name, node| PodPlan::new(name).label("app", "racer").on(node);
    let pods = test.namespace.start_all([plan("one", node1), plan("two", node2)]).await?;
    test.namespace.enforce(EGG, 2).await?;
    Ok(pods)
}

async fn race(test: &Setting, pods: &[Pod; 2]) -> anyhow::Result<()> {
    let pattern = format!("n{{}}.{}.fresh.test", test.namespace.name);
    let reports = try_join_all(pods.iter().zip([0, NAMES]).map(|(pod, first)| {
        let (pattern, first) = (pattern.clone(), first.to_string());
        async move {
            let count = NAMES.to_string();
            pod.race(&["--pattern", &pattern, "--first", &first, "--count", &count, "--families", "both"])
                .await
        }
    }))
    .await?;
    for (pod, report) in pods.iter().zip(&reports) {
        println!(
            "  pod {} on {}: {} names, {} connections; {} names without an address, {} connections failed, {} SYNs sent again",
            pod.name,
            pod.node,
            report.names,
            report.connections,
            report.resolve_failures,
            report.connect_failures,
            report.retried_syns
        );
        println!("    resolve µs: {:?}; connect µs: {:?}", report.resolve, report.connect);
        report.samples.iter().for_each(|sample| println!("    {sample}"));
    }
    ensure!(
        reports.iter().all(|report| report.names == NAMES && report.connections == 2 * NAMES),
        "not all were tried"
    );
    ensure!(
        reports.iter().all(|report| report.is_clean()),
        "the connection was faster than the answer, see above"
    );
    // That none was a SYN is known by now. Of all else a busy machine sends a few again.
    ensure!(
        reports.iter().all(|report| report.retransmitted_segments <= 10),
        "segments were sent again: {reports:?}"
    );
    // And the Egg was in force all the time.
    test.namespace.verify(&pods.each_ref().map(|pod| (pod, vec![blocked("tcp4://n1.fresh.test:443")]))).await
}
