//! A restart writes nothing that has not changed.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::agent::enforce;
use crate::world::{World, egg_spec, expect_gone};

async fn versions(world: &World) -> BTreeMap<String, Option<String>> {
    let assignments = world.assignments().list(&ListParams::default()).await.unwrap();
    let eggs = world.eggs().list(&ListParams::default()).await.unwrap();
    let assignments = assignments.iter().map(|it| (it.name_any(), it.resource_version()));
    assignments.chain(eggs.iter().map(|it| (it.name_any(), it.resource_version()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_that_has_not_changed() {
    let Some(mut world) = World::new("restart").await else { return };
    world.start_operator().await;
    // All that a policy can say, so that nothing of it is lost on the way through the API server.
    let spec = json!({
        "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
        "mode": "Enforce",
        "egress": [
            {"to": [{"domainNames": ["api.example.com", "*.example.org", "**.example.net"]}],
             "ports": [{"protocol": "TCP", "port": 443}, {"port": 8000, "endPort": 8100}]},
            {"to": [{"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}, {"cidr": "2001:db8::/32"}],
             "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "ICMP"}, {"protocol": "SCTP"}]},
            {"action": "Deny", "to": [{"cidr": "169.254.169.254/32"}]},
        ],
    });
    world.apply_egg("full", spec).await;
    world.apply_egg("all", egg_spec(json!({}), "10.0.0.0/8")).await;
    world.apply_egg("broken", egg_spec(json!({}), "nonsense")).await;
    for number in 0..6 {
        world.make_pod(&format!("p{number}"), &format!("fake-{}", number % 3), json!({"app": "web"})).await;
    }
    for node in 0..3 {
        let pods = [format!("p{node}"), format!("p{}", node + 3)];
        for egg in ["full", "all"] {
            let name = format!("{egg}.fake-{node}");
            let assignment = world.expect_pods(&name, &pods.each_ref().map(String::as_str)).await;
            enforce(&world.assignments(), &assignment).await;
        }
    }
    for egg in ["full", "all"] {
        world.expect_condition(egg, "Programmed", "True", "Programmed").await;
    }
    world.expect_condition("broken", "Accepted", "False", "Invalid").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = versions(&world).await;
    assert_eq!(before.len(), 9);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(versions(&world).await, before, "an operator with nothing to do writes nothing");

    for kill in [false, true] {
        if kill {
            world.kill_operator().await;
        } else {
            world.stop_operator().await;
        }
        world.start_operator().await;
        // It is up when it handles something new.
        let name = format!("probe-{kill}");
        world.apply_egg(&name, egg_spec(json!({"matchLabels": {"app": "none"}}), "10.0.0.0/8")).await;
        world.expect_condition(&name, "Programmed", "True", "NoPods").await;
        world.eggs().delete(&name, &DeleteParams::default()).await.unwrap();
        expect_gone(&world.eggs(), &name).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(versions(&world).await, before, "killed: {kill}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_meanwhile_is_made_up_for() {
    let Some(mut world) = World::new("meanwhile").await else { return };
    world.start_operator().await;
    for (name, node) in [("a", "fake-1"), ("b", "fake-2")] {
        world.make_pod(name, node, json!({})).await;
    }
    for egg in ["gone", "stays"] {
        world.apply_egg(egg, egg_spec(json!({}), "10.0.0.0/8")).await;
        world.expect_pods(&format!("{egg}.fake-1"), &["a"]).await;
        world.expect_pods(&format!("{egg}.fake-2"), &["b"]).await;
    }
    world.kill_operator().await;
    // Without the garbage collector's help.
    world.eggs().delete("gone", &DeleteParams::orphan()).await.unwrap();
    world.remove_pod("b").await;
    world.make_pod("c", "fake-3", json!({})).await;
    world.start_operator().await;
    world.expect_pods("stays.fake-3", &["c"]).await;
    expect_gone(&world.assignments(), "stays.fake-2").await;
    expect_gone(&world.assignments(), "gone.fake-1").await;
    expect_gone(&world.assignments(), "gone.fake-2").await;
    assert_eq!(world.assignment_names().await, ["stays.fake-1", "stays.fake-3"]);
    world.end().await;
}
