//! Pods in their node's network, and nodes themselves.

use l7egg_e2e::cluster::{PodPlan, Setting, blocked, reached};

/// What they talk to is on the other node: what is on their own goes over loopback, which is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_in_the_nodes_network_is_enforced_alone() -> anyhow::Result<()> {
    let Some(test) = Setting::new("host-network").await? else { return Ok(()) };
    let [node1, node2] = test.cluster.two_nodes();
    let [of_node, allowed, denied] = test
        .namespace
        .start_all([
            PodPlan::new("of-node").label("app", "agent").on(node1).host_network(),
            PodPlan::new("allowed").on(node2),
            PodPlan::new("denied").on(node2),
        ])
        .await?;
    let [to_allowed, to_denied] = [&allowed, &denied]
        .map(|pod| [format!("tcp://{}:8080", pod.address4), format!("udp://[{}]:8080", pod.address6)]);
    let before: Vec<_> = to_allowed.iter().chain(&to_denied).cloned().map(reached).collect();
    test.namespace.verify(&[(&of_node, before)]).await?;
    let egg = format!(
        "apiVersion: l7egg.dev/v1alpha1
kind: Egg
metadata: {{name: agent}}
spec:
  podSelector: {{matchLabels: {{app: agent}}}}
  egress: [{{to: [{{cidr: {}/32}}, {{cidr: '{}/128'}}]}}]
",
        allowed.address4, allowed.address6
    );
    test.namespace.enforce(&egg, 1).await?;
    let expected = to_allowed.into_iter().map(reached).chain(to_denied.into_iter().map(blocked)).collect();
    test.namespace.verify(&[(&of_node, expected)]).await?;
    // Whoever comes in is answered, and others on the node are not touched: the kubelet, or no `exec` would work.
    let inbound = [format!("tcp://{}:18080", of_node.address4), format!("udp://{}:18080", of_node.address4)];
    test.namespace.verify(&[(&denied, inbound.map(reached).to_vec())]).await
}
