//! ClusterEggs.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{World, condition, eventually, expect_gone, expect_pods};

async fn apply(world: &World, name: &str, spec: Value) {
    let object = json!({"apiVersion": "l7egg.dev/v1alpha1", "kind": "ClusterEgg", "metadata": {"name": name}, "spec": spec});
    let params = PatchParams::apply("l7egg-test").force();
    world
        .cluster_eggs()
        .patch(name, &params, &Patch::Apply(&object))
        .await
        .expect("the ClusterEgg is stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_selected_by_label() {
    let Some(mut world) = World::new("cluster").await else { return };
    world.start_operator().await;
    let (one, two) = (format!("{}-one", world.namespace), format!("{}-two", world.namespace));
    let name = world.namespace.clone();
    world.make_namespace(&one, json!({"test": name, "env": "prod"})).await;
    world.make_namespace(&two, json!({"test": name, "env": "test"})).await;
    world.make_pod_in(&one, "a", "fake-1", json!({})).await;
    world.make_pod_in(&two, "b", "fake-1", json!({})).await;
    let labels = json!({"test": name, "env": "prod"});
    let deny = json!([{"action": "Deny", "to": [{"cidr": "169.254.169.254/32"}]}]);
    let spec = json!({"namespaceSelector": {"matchLabels": labels}, "podSelector": {}, "egress": deny});
    apply(&world, &name, spec).await;

    let id = format!("cluster.{name}.fake-1");
    let assignment = expect_pods(&world.system_assignments(), &id, &["a"]).await;
    assert_eq!(assignment.spec.egg.namespace, None);
    world.make_namespace(&two, json!({"test": name, "env": "prod"})).await;
    expect_pods(&world.system_assignments(), &id, &["a", "b"]).await;
    world.make_namespace(&one, json!({"test": name, "env": "test"})).await;
    expect_pods(&world.system_assignments(), &id, &["b"]).await;
    world.cluster_eggs().delete(&name, &DeleteParams::default()).await.unwrap();
    expect_gone(&world.system_assignments(), &id).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_cannot_have_is_refused_in_words() {
    let Some(mut world) = World::new("nodes").await else { return };
    world.start_operator().await;
    let name = world.namespace.clone();
    apply(&world, &name, json!({"nodeSelector": {}, "dns": {"refuseUnmatched": true}})).await;
    let message = eventually("the ClusterEgg is refused", || async {
        let egg = world.cluster_eggs().get(&name).await.map_err(|error| error.to_string())?;
        let status = egg.status.unwrap_or_default();
        match condition(&status, "Accepted") {
            Some(accepted) if accepted.reason == "Invalid" => Ok(accepted.message.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(message.contains("a node must be able to ask"), "{message}");
    eventually("there is an event", || async {
        let reasons = world.event_reasons_in("default", &name).await;
        if reasons == ["Rejected"] { Ok(()) } else { Err(format!("{reasons:?}")) }
    })
    .await;
    world.cluster_eggs().delete(&name, &DeleteParams::default()).await.unwrap();
    world.end().await;
}
