//! The agents' reports become the Egg's status.

use kube::ResourceExt;
use l7egg_crds::{PodCounts, PodState};
use serde_json::json;

use crate::agent::{enforce, enforce_since, report};
use crate::world::{World, condition, egg_spec, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_pending_to_programmed_and_failed() {
    let Some(mut world) = World::new("status").await else { return };
    world.start_operator().await;
    world.apply_egg("all", egg_spec(json!({}), "10.0.0.0/8")).await;
    let status = world.expect_condition("all", "Programmed", "True", "NoPods").await;
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(condition(&status, "Accepted").unwrap().reason, "Accepted");

    world.make_pod("a", "fake-1", json!({})).await;
    world.make_pod("b", "fake-2", json!({})).await;
    let status = world.expect_condition("all", "Programmed", "False", "Pending").await;
    assert_eq!((status.pods.enforced, status.pods.failed), (0, 0));
    let one = world.expect_pods("all.fake-1", &["a"]).await;
    let two = world.expect_pods("all.fake-2", &["b"]).await;
    enforce(&world.assignments(), &one).await;
    report(&world.assignments(), &two, PodState::Failed, ("NoBtf", "the kernel has no BTF")).await;
    let status = world.expect_condition("all", "Programmed", "False", "Failed").await;
    assert_eq!(status.pods, PodCounts { selected: 2, enforced: 1, audited: 0, failed: 1 });
    let message = &condition(&status, "Programmed").unwrap().message;
    assert!(message.contains("/b on fake-2 (NoBtf: the kernel has no BTF)"), "{message}");

    enforce(&world.assignments(), &two).await;
    let programmed = world.expect_condition("all", "Programmed", "True", "Programmed").await;
    assert_eq!(programmed.pods, PodCounts { selected: 2, enforced: 2, audited: 0, failed: 0 });
    // The agents have not seen the edit yet.
    world.apply_egg("all", egg_spec(json!({}), "192.0.2.0/24")).await;
    let status = world.expect_condition("all", "Programmed", "False", "Pending").await;
    assert_eq!(status.pods.enforced, 0);
    for name in ["all.fake-1", "all.fake-2"] {
        let assignment = eventually("the edit is there", || async {
            let assignment = world.assignments().get(name).await.map_err(|error| error.to_string())?;
            if assignment.spec.egg.generation == 2 { Ok(assignment) } else { Err("not yet".to_owned()) }
        })
        .await;
        enforce(&world.assignments(), &assignment).await;
    }
    let status = world.expect_condition("all", "Programmed", "True", "Programmed").await;
    let accepted = |status| condition(status, "Accepted").unwrap().last_transition_time.clone();
    assert_eq!(accepted(&status), accepted(&programmed), "it was accepted all the time");

    for reason in ["Accepted", "PodFailed", "Programmed"] {
        eventually(&format!("an event {reason}"), || async {
            let reasons = world.event_reasons("all").await;
            if reasons.iter().any(|found| found == reason) { Ok(()) } else { Err(format!("{reasons:?}")) }
        })
        .await;
    }
    world.end().await;
}

/// A node restarts, and its agent does not come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_enforced_before_a_restart_of_the_node_is_pending() {
    let Some(mut world) = World::new("reboot").await else { return };
    world.start_operator().await;
    world.apply_egg("all", egg_spec(json!({}), "10.0.0.0/8")).await;
    world.make_pod("a", "fake-1", json!({})).await;
    world.boot_node("fake-1", "first").await;
    let assignment = world.expect_pods("all.fake-1", &["a"]).await;
    enforce_since(&world.assignments(), &assignment, "first").await;
    world.expect_condition("all", "Programmed", "True", "Programmed").await;

    world.boot_node("fake-1", "second").await;
    let status = world.expect_condition("all", "Programmed", "False", "Pending").await;
    assert_eq!(status.pods, PodCounts { selected: 1, enforced: 0, audited: 0, failed: 0 });
    let message = &condition(&status, "Programmed").unwrap().message;
    assert!(message.contains("node fake-1 has restarted since its agent reported"), "{message}");

    enforce_since(&world.assignments(), &assignment, "second").await;
    world.expect_condition("all", "Programmed", "True", "Programmed").await;
    world.end().await;
}

/// Kubernetes' scheduler brings many pods at once; the status is not to be written for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_are_written_together() {
    let Some(mut world) = World::new("bursts").await else { return };
    world.start_operator().await;
    let egg = world.apply_egg("all", egg_spec(json!({}), "10.0.0.0/8")).await;
    world.expect_condition("all", "Programmed", "True", "NoPods").await;
    for number in 0..50 {
        world.make_pod(&format!("p{number}"), "fake-1", json!({})).await;
    }
    let assignment = eventually("all pods are assigned", || async {
        let assignment = world.assignments().get("all.fake-1").await.map_err(|error| error.to_string())?;
        if assignment.spec.pods.len() == 50 { Ok(assignment) } else { Err("not yet".to_owned()) }
    })
    .await;
    enforce(&world.assignments(), &assignment).await;
    let status = world.expect_condition("all", "Programmed", "True", "Programmed").await;
    assert_eq!(status.pods.enforced, 50);
    assert_eq!(world.eggs().get("all").await.unwrap().uid(), egg.uid());
    world.end().await;
}
