//! Two operators, of which one writes.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams};
use l7egg_operator::Settings;
use serde_json::json;

use crate::world::{Operator, World, egg_spec, eventually};

fn settings(world: &World, identity: &str) -> Settings {
    Settings {
        leader_elect: true,
        lease_namespace: world.namespace.clone(),
        identity: identity.to_owned(),
        ..Settings::default()
    }
}

async fn holder(world: &World) -> Option<String> {
    let api: Api<Lease> = Api::namespaced(world.client.clone(), &world.namespace);
    api.get_opt("l7egg-operator").await.unwrap()?.spec?.holder_identity.filter(|holder| !holder.is_empty())
}

async fn expect_holder(world: &World, expected: &str) {
    eventually(&format!("{expected} leads"), || async {
        let holder = holder(world).await;
        if holder.as_deref() == Some(expected) { Ok(()) } else { Err(format!("{holder:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_another_takes_over() {
    let Some(world) = World::new("leader").await else { return };
    let first = Operator::start(&world.client, settings(&world, "first"));
    expect_holder(&world, "first").await;
    let second = Operator::start(&world.client, settings(&world, "second"));
    world.make_pod("a", "fake-1", json!({})).await;
    world.apply_egg("all", egg_spec(json!({}), "10.0.0.0/8")).await;
    world.expect_pods("all.fake-1", &["a"]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    expect_holder(&world, "first").await;

    let start = Instant::now();
    first.stop().await;
    assert_eq!(holder(&world).await.filter(|holder| holder == "first"), None, "the lease was given back");
    expect_holder(&world, "second").await;
    world.make_pod("b", "fake-2", json!({})).await;
    world.expect_pods("all.fake-2", &["b"]).await;
    println!("the second writes {:?} after the first was told to stop", start.elapsed());

    // Killed, it does not give the lease back; a new one of the same name, as a restarted container is,
    // takes up its own lease at once.
    second.kill().await;
    let start = Instant::now();
    let again = Operator::start(&world.client, settings(&world, "second"));
    world.make_pod("c", "fake-3", json!({})).await;
    world.expect_pods("all.fake-3", &["c"]).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    // Where its node ends, nothing comes back under its name: a standby writes before new pods are let go. Once more where the
    // machine stood still meanwhile.
    let mut leader = again;
    for round in 0.. {
        let standby = Operator::start(&world.client, settings(&world, &format!("standby-{round}")));
        tokio::time::sleep(Duration::from_secs(3)).await;
        leader.kill().await;
        let start = Instant::now();
        let (pod, node) = (format!("d{round}"), format!("fake-d{round}"));
        world.make_pod(&pod, &node, json!({})).await;
        world.expect_pods(&format!("all.{node}"), &[&pod]).await;
        println!("the standby writes {:?} after the leader was killed", start.elapsed());
        leader = standby;
        if start.elapsed() < l7egg_crds::HOLD_FOR {
            break;
        }
        assert!(round < 3, "{:?}", start.elapsed());
    }

    // Somebody else takes the lease away: it must write no more.
    let api: Api<Lease> = Api::namespaced(world.client.clone(), &world.namespace);
    eventually("the lease is taken away", || async {
        let mut lease = api.get("l7egg-operator").await.map_err(|error| error.to_string())?;
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some("somebody".to_owned());
        spec.lease_duration_seconds = Some(60);
        let replaced = api.replace("l7egg-operator", &Default::default(), &lease).await;
        replaced.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    // Longer than who leads may go without a renewal.
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.make_pod("e", "fake-5", json!({})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!world.assignment_names().await.contains(&"all.fake-5".to_owned()), "it wrote without the lease");
    api.delete("l7egg-operator", &DeleteParams::default()).await.unwrap();
    world.expect_pods("all.fake-5", &["e"]).await;
    leader.stop().await;
    world.end().await;
}
