//! Nodes whose agent is not ready are kept free of new pods.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use l7egg_operator::{Settings, TAINT};
use serde_json::json;

use crate::world::{World, eventually};

const LABEL: &str = "app.kubernetes.io/name";
const AGENT: &str = "l7egg-node-agent";
/// How long a controller may take to see a node.
const CONTROLLER: Duration = Duration::from_secs(20);

fn settings(world: &World) -> Settings {
    Settings { agent_taint: true, lease_namespace: world.namespace.clone(), ..Settings::default() }
}

/// Effects of the node's taints of ours.
async fn effects(world: &World, node: &str) -> Vec<String> {
    let node = Api::<Node>::all(world.client.clone()).get(node).await.expect("the node is there");
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default().into_iter();
    taints.filter(|taint| taint.key == TAINT).map(|taint| taint.effect).collect()
}

async fn expect(world: &World, node: &str, expected: &[&str]) {
    eventually(&format!("taints of {node} are {expected:?}"), || async {
        let found = effects(world, node).await;
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// Where a controller taints nodes that nobody may schedule to, as all of the tests' are: the one of Kubernetes 1.20 writes the whole list,
/// as it was when it looked, so it has to be done with it.
async fn wait_for_unschedulable(world: &World, node: &str) {
    let api = Api::<Node>::all(world.client.clone());
    let start = Instant::now();
    while start.elapsed() < CONTROLLER {
        let node = api.get(node).await.expect("the node is there");
        let mut taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default().into_iter();
        if taints.any(|taint| taint.key == "node.kubernetes.io/unschedulable") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{node} is not tainted as unschedulable: no controller takes part");
}

/// The agents' DaemonSet, whose pods these are not: its controller would have a say in them.
async fn make_daemon_set(world: &World) -> Api<DaemonSet> {
    let template = json!({"metadata": {"labels": {"set": "none"}}, "spec": {
        "nodeSelector": {"l7egg.dev/none": "none"}, "containers": [{"name": "a", "image": "none"}]}});
    let set = json!({"metadata": {"name": AGENT},
        "spec": {"selector": {"matchLabels": {"set": "none"}}, "template": template}});
    let sets: Api<DaemonSet> = Api::namespaced(world.client.clone(), &world.namespace);
    sets.create(&PostParams::default(), &serde_json::from_value(set).unwrap())
        .await
        .expect("the DaemonSet is made");
    sets
}

async fn set_ready(world: &World, pod: &str, ready: bool) {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace);
    let status = if ready { "True" } else { "False" };
    let patch = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
    let patched = pods.patch_status(pod, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.expect("the pod's status is stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_tainted_while_its_agent_is_not_ready() {
    let Some(mut world) = World::new("taint").await else { return };
    let sets = make_daemon_set(&world).await;
    world.make_pod("agent", "taint-1", json!({LABEL: AGENT})).await;
    world.make_pod("other", "taint-2", json!({})).await;
    for node in ["taint-1", "taint-2"] {
        wait_for_unschedulable(&world, node).await;
    }
    world.start_operator_with(settings(&world)).await;
    expect(&world, "taint-1", &["NoSchedule"]).await;
    set_ready(&world, "agent", true).await;
    expect(&world, "taint-1", &[]).await;
    set_ready(&world, "agent", false).await;
    expect(&world, "taint-1", &["NoSchedule"]).await;
    assert!(effects(&world, "taint-2").await.is_empty(), "no agent is meant for it");

    // An operator that begins while an agent is ready takes the taint off that the node was registered with.
    world.stop_operator().await;
    set_ready(&world, "agent", true).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(effects(&world, "taint-1").await, ["NoSchedule"]);
    world.start_operator_with(settings(&world)).await;
    expect(&world, "taint-1", &[]).await;

    // Who removes l7egg is not left with nodes that nobody may use.
    set_ready(&world, "agent", false).await;
    expect(&world, "taint-1", &["NoSchedule"]).await;
    sets.delete(AGENT, &DeleteParams::background()).await.expect("the DaemonSet goes");
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace);
    let _ = pods.delete("agent", &DeleteParams::default().grace_period(0)).await;
    expect(&world, "taint-1", &[]).await;
    world.end().await;
}
