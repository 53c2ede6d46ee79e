//! Bandwidth limits, from pods' annotations to the Egg's status.

use l7egg_crds::{EGRESS_BANDWIDTH_ANNOTATION, EggAssignment, EgressLimit, PodReport, PodState};
use l7egg_operator::Settings;
use serde_json::json;

use crate::agent;
use crate::world::{World, egg_spec, eventually};

/// The assignment, once its pod has this annotation.
async fn expect_bandwidth(world: &World, bandwidth: Option<&str>) -> EggAssignment {
    eventually(&format!("the assignment says {bandwidth:?}"), || async {
        let assignment = world.assignments().get("all.fake-1").await.map_err(|error| error.to_string())?;
        let found = assignment.spec.pods.first().and_then(|pod| pod.egress_bandwidth.as_deref());
        if found == bandwidth { Ok(assignment.clone()) } else { Err(format!("{found:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_annotation_reaches_the_agent_and_the_limit_the_status() {
    let Some(mut world) = World::new("shaping").await else { return };
    world.start_operator().await;
    world.apply_egg("all", egg_spec(json!({}), "10.0.0.0/8")).await;
    world.make_pod("a", "fake-1", json!({})).await;
    expect_bandwidth(&world, None).await;
    world.annotate_pod("a", json!({EGRESS_BANDWIDTH_ANNOTATION: "10M"})).await;
    expect_bandwidth(&world, Some("10M")).await;
    world.annotate_pod("a", json!({EGRESS_BANDWIDTH_ANNOTATION: "20M"})).await;
    let assignment = expect_bandwidth(&world, Some("20M")).await;

    let of = format!("annotation {EGRESS_BANDWIDTH_ANNOTATION}");
    let report = PodReport {
        uid: assignment.spec.pods[0].uid.clone(),
        state: PodState::Enforced,
        reason: String::new(),
        message: String::new(),
        egress_limit: Some(EgressLimit { bits_per_second: 20_000_000, of }),
    };
    agent::store(&world.assignments(), &assignment, vec![report]).await;
    let status = world.expect_condition("all", "Programmed", "True", "Programmed").await;
    assert_eq!(status.egress_limit, "20M of annotation kubernetes.io/egress-bandwidth");

    // An operator that is told to leave annotations alone takes the limit back.
    world.stop_operator().await;
    world.start_operator_with(Settings { egress_bandwidth_annotation: false, ..Settings::default() }).await;
    let assignment = expect_bandwidth(&world, None).await;
    agent::enforce(&world.assignments(), &assignment).await;
    eventually("the status has no limit", || async {
        let egg = world.eggs().get("all").await.map_err(|error| error.to_string())?;
        let limit = egg.status.unwrap_or_default().egress_limit;
        if limit.is_empty() { Ok(()) } else { Err(limit) }
    })
    .await;
    world.end().await;
}
