//! Eggs and pods become EggAssignments, and cease to be.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use kube::{Resource, ResourceExt};
use l7egg_crds::{EggAssignment, NODE_LABEL, node_label_value};
use l7egg_operator::index::EggKey;
use l7egg_operator::naming::assignment_key;
use serde_json::json;

use crate::agent::enforce;
use crate::world::{World, egg_spec, eventually, expect_gone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_and_go() {
    let Some(mut world) = World::new("pods").await else { return };
    world.start_operator().await;
    let pod = world.make_pod("b", "fake-1", json!({"app": "web"})).await;
    world.make_pod("a", "fake-1", json!({"app": "web"})).await;
    world.make_pod("other", "fake-1", json!({"app": "db"})).await;
    let egg = world.apply_egg("web", egg_spec(json!({"matchLabels": {"app": "web"}}), "10.0.0.0/8")).await;

    let assignment = world.expect_pods("web.fake-1", &["a", "b"]).await;
    assert_eq!(assignment.spec.node, "fake-1");
    assert_eq!(assignment.labels()[NODE_LABEL], "fake-1");
    assert_eq!(assignment.spec.policy, egg.spec.policy);
    assert_eq!(assignment.spec.egg.generation, 1);
    assert_eq!(Some(&assignment.spec.pods[1].uid), pod.metadata.uid.as_ref());
    assert_eq!(assignment.spec.pods[1].dns.policy, "ClusterFirst");
    let owner = &assignment.owner_references()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.controller), ("Egg", "web", Some(true)));
    assert_eq!(Some(&owner.uid), egg.metadata.uid.as_ref());

    world.make_pod("c", "fake-2", json!({"app": "web"})).await;
    world.expect_pods("web.fake-2", &["c"]).await;
    world.remove_pod("c").await;
    expect_gone(&world.assignments(), "web.fake-2").await;
    world.finish_pod("b").await;
    world.expect_pods("web.fake-1", &["a"]).await;
    world.label_pod("other", json!({"app": "web"})).await;
    world.expect_pods("web.fake-1", &["a", "other"]).await;
    world.label_pod("a", json!({"app": null})).await;
    world.expect_pods("web.fake-1", &["other"]).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn match_expressions() {
    let Some(mut world) = World::new("expressions").await else { return };
    world.start_operator().await;
    for tier in ["a", "b", "c"] {
        world.make_pod(tier, "fake-1", json!({"tier": tier})).await;
    }
    world.make_pod("none", "fake-1", json!({})).await;
    for (name, operator, values, pods) in [
        ("in", "In", json!(["a", "b"]), &["a", "b"][..]),
        ("notin", "NotIn", json!(["a", "b"]), &["c", "none"]),
        ("exists", "Exists", json!([]), &["a", "b", "c"]),
        ("absent", "DoesNotExist", json!([]), &["none"]),
    ] {
        let expression = json!({"key": "tier", "operator": operator, "values": values});
        world.apply_egg(name, egg_spec(json!({"matchExpressions": [expression]}), "10.0.0.0/8")).await;
        world.expect_pods(&format!("{name}.fake-1"), pods).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_many_nodes_does_not_hold_up_another_egg() {
    const NODES: usize = 100;
    let Some(mut world) = World::new("many").await else { return };
    for node in 0..NODES {
        world.make_pod(&format!("p{node}"), &format!("fake-{node}"), json!({"app": "large"})).await;
    }
    world.make_pod("small", "fake-0", json!({"app": "small"})).await;
    world.start_operator().await;
    let select = |app: &str| json!({"matchLabels": {"app": app}});
    let start = Instant::now();
    world.apply_egg("large", egg_spec(select("large"), "10.0.0.0/8")).await;
    world.apply_egg("small", egg_spec(select("small"), "10.0.0.0/8")).await;
    world.expect_pods("small.fake-0", &["small"]).await;
    let small = start.elapsed();
    eventually("all assignments are there", || async {
        let count = world.assignment_names().await.len();
        if count == NODES + 1 { Ok(()) } else { Err(format!("{count}")) }
    })
    .await;
    println!("one Egg's {NODES} assignments after {:?}; another Egg's one after {small:?}", start.elapsed());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_reach_every_node_at_once() {
    let Some(mut world) = World::new("edits").await else { return };
    world.start_operator().await;
    for node in 0..5 {
        world.make_pod(&format!("p{node}"), &format!("fake-{node}"), json!({})).await;
    }
    let mut times = Vec::new();
    // One that is edited again and again is judged later and later, and these are to be at once.
    for number in 0..20 {
        let name = format!("all{}", number / 4);
        if number % 4 == 0 {
            world.apply_egg(&name, egg_spec(json!({}), "10.0.0.0/8")).await;
            world.expect_pods(&format!("{name}.fake-4"), &["p4"]).await;
        }
        let start = Instant::now();
        let egg = world.apply_egg(&name, egg_spec(json!({}), &format!("10.{number}.0.0/16"))).await;
        let stored = start.elapsed();
        eventually("the last node has the edit", || async {
            for node in 0..5 {
                let name = format!("{name}.fake-{node}");
                let assignment = world.assignments().get(&name).await.map_err(|error| error.to_string())?;
                if Some(assignment.spec.egg.generation) != egg.metadata.generation {
                    return Err(name);
                }
            }
            Ok(())
        })
        .await;
        times.push(start.elapsed() - stored);
    }
    times.sort();
    println!("Egg stored → seen on five assignments: p50 {:?}, worst {:?}", times[10], times[19]);
    assert!(times[10] < Duration::from_secs(5), "{times:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_egg_takes_its_assignments_with_it() {
    let Some(mut world) = World::new("deletes").await else { return };
    world.start_operator().await;
    world.make_pod("a", "fake-1", json!({})).await;
    for (name, policy) in [
        ("background", PropagationPolicy::Background),
        // With these the Egg stays until the garbage collector has seen to it, if that takes part at all.
        ("orphan", PropagationPolicy::Orphan),
        ("foreground", PropagationPolicy::Foreground),
    ] {
        let assignment = format!("{name}.fake-1");
        world.apply_egg(name, egg_spec(json!({}), "10.0.0.0/8")).await;
        world.expect_pods(&assignment, &["a"]).await;
        let start = Instant::now();
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        world.eggs().delete(name, &params).await.unwrap();
        expect_gone(&world.assignments(), &assignment).await;
        println!("{name}: assignment gone {:?} after the deletion was ordered", start.elapsed());
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_do_to_an_assignment_is_undone() {
    let Some(mut world) = World::new("tampering").await else { return };
    world.start_operator().await;
    world.make_pod("a", "fake-1", json!({})).await;
    world.apply_egg("all", egg_spec(json!({}), "10.0.0.0/8")).await;
    let before = world.expect_pods("all.fake-1", &["a"]).await;
    let as_before = |what: String| {
        let (assignments, before) = (world.assignments(), before.clone());
        async move {
            eventually(&format!("{what} is undone"), || async {
                let now = assignments.get("all.fake-1").await.map_err(|error| error.to_string())?;
                let same = now.spec == before.spec
                    && now.labels() == before.labels()
                    && now.owner_references() == before.owner_references();
                if same { Ok(()) } else { Err(format!("{now:?}")) }
            })
            .await;
        }
    };
    for patch in [
        json!({"spec": {"policy": {"egress": []}}}),
        json!({"spec": {"node": "fake-2"}}),
        json!({"metadata": {"labels": null}}),
        json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}),
        json!({"metadata": {"ownerReferences": null}}),
    ] {
        let params = PatchParams::default();
        world.assignments().patch("all.fake-1", &params, &Patch::Merge(&patch)).await.unwrap();
        as_before(patch.to_string()).await;
    }
    // Entries of lists that belong to another manager stay over every apply.
    let foreign = json!({
        "apiVersion": EggAssignment::api_version(&()), "kind": EggAssignment::kind(&()),
        "spec": {"pods": [{"namespace": &world.namespace, "name": "foreign", "uid": "foreign"}]},
    });
    let params = PatchParams::apply("somebody").force();
    world.assignments().patch("all.fake-1", &params, &Patch::Apply(&foreign)).await.unwrap();
    as_before("another manager's pod".to_owned()).await;
    // What the operator itself adds it can still take away.
    world.make_pod("b", "fake-1", json!({})).await;
    world.expect_pods("all.fake-1", &["a", "b"]).await;
    world.remove_pod("b").await;
    world.expect_pods("all.fake-1", &["a"]).await;

    world.assignments().delete("all.fake-1", &DeleteParams::default()).await.unwrap();
    eventually("a deleted assignment is back", || async {
        let now = world.assignments().get("all.fake-1").await.map_err(|error| error.to_string())?;
        if now.uid() == before.uid() { Err("not yet deleted".to_owned()) } else { Ok(()) }
    })
    .await;
    world.end().await;
}

/// The longest names that there can be; a label has less room than the name of a node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_names() {
    let Some(mut world) = World::new("long").await else { return };
    world.start_operator().await;
    let (name, node) = (vec!["e".repeat(50); 4].join("."), vec!["n".repeat(50); 4].join("."));
    world.make_pod("a", &node, json!({})).await;
    world.apply_egg(&name, egg_spec(json!({}), "10.0.0.0/8")).await;
    let key = assignment_key(&EggKey::egg(&world.namespace, &name), &node);
    let assignment = world.expect_pods(&key.name, &["a"]).await;
    assert_eq!(assignment.spec.node, node);
    assert_eq!(assignment.labels()[NODE_LABEL], node_label_value(&node));
    enforce(&world.assignments(), &assignment).await;
    world.expect_condition(&name, "Programmed", "True", "Programmed").await;
    world.end().await;
}
