//! Eggs that are not accepted.

use serde_json::json;

use crate::agent::enforce;
use crate::world::{World, condition, egg_spec, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_enforced_stays_enforced() {
    let Some(mut world) = World::new("rejected").await else { return };
    world.start_operator().await;
    world.make_pod("a", "fake-1", json!({"app": "web"})).await;
    let selector = || json!({"matchLabels": {"app": "web"}});
    world.apply_egg("web", egg_spec(selector(), "10.0.0.0/8")).await;
    let good = world.expect_pods("web.fake-1", &["a"]).await;
    enforce(&world.assignments(), &good).await;
    world.expect_condition("web", "Programmed", "True", "Programmed").await;

    world.apply_egg("web", egg_spec(selector(), "10.0.0.0/99")).await;
    let status = world.expect_condition("web", "Accepted", "False", "Invalid").await;
    let message = &condition(&status, "Accepted").unwrap().message;
    assert!(message.starts_with("spec.egress[0].to[0].cidr: "), "{message}");
    let programmed = condition(&status, "Programmed").unwrap();
    assert_eq!(programmed.reason, "NotAccepted");
    assert!(programmed.message.contains("generation 1 stays in force: 1 of 1"), "{}", programmed.message);
    world.make_pod("b", "fake-2", json!({"app": "web"})).await;
    let new = world.expect_pods("web.fake-2", &["b"]).await;
    assert_eq!((new.spec.egg.generation, &new.spec.policy), (1, &good.spec.policy));

    // Nor does a restart forget it.
    world.stop_operator().await;
    world.make_pod("c", "fake-3", json!({"app": "web"})).await;
    world.start_operator().await;
    let newer = world.expect_pods("web.fake-3", &["c"]).await;
    assert_eq!((newer.spec.egg.generation, &newer.spec.policy), (1, &good.spec.policy));
    let now = world.assignments().get("web.fake-1").await.unwrap();
    assert_eq!(now.metadata.generation, good.metadata.generation, "nothing was written");

    world.apply_egg("web", egg_spec(selector(), "192.0.2.0/24")).await;
    world.expect_condition("web", "Accepted", "True", "Accepted").await;
    eventually("the mended policy is in force", || async {
        let assignment = world.assignments().get("web.fake-1").await.map_err(|error| error.to_string())?;
        if assignment.spec.egg.generation == 3 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let reasons = eventually("the events are there", || async {
        let reasons = world.event_reasons("web").await;
        if reasons.iter().any(|reason| reason == "Rejected") {
            Ok(reasons)
        } else {
            Err(format!("{reasons:?}"))
        }
    })
    .await;
    assert!(reasons.contains(&"Accepted".to_owned()), "{reasons:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_accepted_restricts_nobody() {
    let Some(mut world) = World::new("never").await else { return };
    world.start_operator().await;
    world.make_pod("a", "fake-1", json!({})).await;
    let near = json!({"matchExpressions": [{"key": "app", "operator": "Near", "values": ["web"]}]});
    world.apply_egg("operator", egg_spec(near, "10.0.0.0/8")).await;
    world.expect_condition("operator", "Accepted", "False", "InvalidSelector").await;
    world.apply_egg("cidr", egg_spec(json!({}), "nonsense")).await;
    let status = world.expect_condition("cidr", "Accepted", "False", "Invalid").await;
    assert_eq!(status.pods.selected, 1);
    assert_eq!(condition(&status, "Programmed").unwrap().reason, "NotAccepted");
    assert_eq!(world.assignment_names().await, [""; 0]);
    world.end().await;
}
