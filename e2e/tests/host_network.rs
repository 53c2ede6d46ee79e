//! Pods in their node's network, and nodes themselves.

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1 as core};
use kube::api::Api;
use l7egg_e2e::cluster::{Pod, PodPlan, Setting, blocked, eventually, reached};
use l7egg_e2e::probe::{ConnectReport, Outcome};

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

/// What becomes of connections of one of the node's own processes: a probe of a pod that is moved into the node's cgroup.
async fn of_node(pod: &Pod, targets: &[String]) -> anyhow::Result<Vec<ConnectReport>> {
    let script = format!(
        r#"pid=$$
           cgroup=$(sed -n 's/^0:://p' /proc/1/cgroup)
           nsenter -t 1 -m sh -c "echo $pid >$(nsenter -t 1 -m sh -c 'ls -d /sys/fs/cgroup/unified /sys/fs/cgroup | tail -n 1')$cgroup/cgroup.procs"
           exec /probe connect --timeout-ms 3000 {}"#,
        targets.join(" ")
    );
    let output = pod.exec(&["sh", "-c", &script]).await?;
    Ok(output.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_enforced_and_not_lost() -> anyhow::Result<()> {
    let Some(test) = Setting::new("node").await? else { return Ok(()) };
    let client = test.cluster.client().clone();
    let agents: DaemonSet = Api::namespaced(client.clone(), "l7egg-system").get("l7egg-node-agent").await?;
    if !serde_json::to_string(&agents.spec)?.contains("--host-cgroup=") {
        println!(
            "skipped: the agents have no --host-cgroup: it would be the nodes of somebody's cluster that are enforced"
        );
        return Ok(());
    }
    let [node1, node2] = test.cluster.two_nodes();
    let [of, pod, allowed, denied] = test
        .namespace
        .start_all([
            PodPlan::new("of").on(node2).host_network().privileged(),
            PodPlan::new("pod").on(node2),
            PodPlan::new("allowed").on(node1),
            PodPlan::new("denied").on(node1),
        ])
        .await?;
    let targets = [
        format!("tcp://{}:8080", allowed.address4),
        format!("tcp://[{}]:8080", allowed.address6),
        format!("tcp://{}:8080", denied.address4),
        format!("tcp://[{}]:8080", denied.address6),
    ];
    let (free, enforced) =
        ([const { Outcome::Ok }; 4], [Outcome::Ok, Outcome::Ok, Outcome::Denied, Outcome::Denied]);
    // What the first SYN could not reach was out of reach.
    let outcome = |report: ConnectReport| match report.later {
        Some(later) if report.outcome.is_reached() => Outcome::Error(format!("by a later {later:?}")),
        _ => report.outcome,
    };
    let outcomes = |reports: Vec<ConnectReport>| reports.into_iter().map(outcome).collect::<Vec<_>>();
    assert_eq!(outcomes(of_node(&of, &targets).await?), free);
    let name = &test.namespace.name;
    let firewall = |mode: &str| {
        format!(
            "apiVersion: l7egg.dev/v1alpha1
kind: ClusterEgg
metadata: {{name: {name}}}
spec:
  mode: {mode}
  nodeSelector: {{matchLabels: {{kubernetes.io/hostname: {node2}}}}}
  egress:
  - to: [{{cidr: {}/32}}, {{cidr: '{}/128'}}]
  - action: Deny
    to: [{{cidr: 192.168.0.0/16}}, {{cidr: 'fd00:77::/64'}}, {{cidr: {}/32}}]
",
            allowed.address4, allowed.address6, denied.address4
        )
    };
    // As the documentation has it: first look what it would do.
    test.namespace.audit_nodes(&firewall("Audit"), 1).await?;
    assert_eq!(outcomes(of_node(&of, &targets).await?), free);
    let whose = format!("node {node2}");
    eventually("what the node would be denied is told", std::time::Duration::from_secs(30), || async {
        let flows = test.cluster.denied(node2, &whose).await?;
        let is_told = |address: String| {
            let mut flows = flows.iter();
            flows.any(|flow| flow["destination"] == address && flow["verdict"] == "audit")
        };
        let rule = format!("ClusterEgg {name} spec.egress[1]");
        let is_named = flows.iter().any(|flow| flow["rule"] == rule);
        let all = is_named && is_told(denied.address4.to_string()) && is_told(denied.address6.to_string());
        Ok(if all { Ok(()) } else { Err(format!("{flows:?}")) })
    })
    .await?;
    let (egg, status) = test.namespace.enforce_on_nodes(&firewall("Enforce"), 1).await?;
    let guard = status.guard.join("; ");
    println!("  reachable whatever the Egg says: {guard}");
    assert!(guard.contains("API server") && guard.contains("TCP 6443"), "{guard}");
    assert_eq!(outcomes(of_node(&of, &targets).await?), enforced);
    // Pods, in the node's network too, are not meant.
    let all: Vec<_> = targets.iter().cloned().map(reached).collect();
    test.namespace.verify(&[(&pod, all.clone()), (&of, all)]).await?;
    // The kubelet goes on: it starts pods and probes them, is asked by the API server, and reports.
    let new = test.namespace.start(PodPlan::new("new").on(node2)).await?;
    test.namespace.verify(&[(&new, targets.iter().cloned().map(reached).collect())]).await?;
    let nodes: Api<core::Node> = Api::all(client);
    let heartbeat = |node: &core::Node| {
        let conditions = node.status.clone().and_then(|status| status.conditions).unwrap_or_default();
        conditions.into_iter().find(|one| one.type_ == "Ready").map(|one| one.status)
    };
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
    assert_eq!(heartbeat(&nodes.get(node2).await?).as_deref(), Some("True"));
    egg.delete().await?;
    eventually("the node is free again", std::time::Duration::from_secs(30), || async {
        let outcomes = outcomes(of_node(&of, &targets).await?);
        Ok(if outcomes == free { Ok(()) } else { Err(format!("{outcomes:?}")) })
    })
    .await
}
