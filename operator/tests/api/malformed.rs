//! Objects that were stored past their schema do not stop the others.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams};
use l7egg_crds::{Egg, EggAssignment};
use serde_json::{Value, json};

use crate::world::{World, condition, egg_spec, eventually, from, replace};

/// The CRD without a schema, as long as the test needs it.
fn without_schema(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        version.schema = Some(from(json!({"openAPIV3Schema": anything})));
    }
    crd
}

/// Stores an object; a changed schema takes the API server a moment, so until it is stored as it is meant.
async fn store(world: &World, resource: &ApiResource, name: &str, metadata: Value, spec: Value) {
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, resource);
    let mut object: DynamicObject = from(json!({
        "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec,
    }));
    object.metadata.name = Some(name.to_owned());
    eventually(&format!("{name} is stored past the schema"), || async {
        match api.create(&PostParams::default(), &object).await {
            Ok(stored) if stored.data["spec"] == spec => Ok(()),
            Ok(stored) => {
                let _ = api.delete(name, &DeleteParams::default()).await;
                Err(format!("{:?}", stored.data))
            }
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_objects_do_not_stop_the_others() {
    let Some(mut world) = World::new("malformed").await else { return };
    let crds: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    world.make_pod("a", "fake-1", json!({})).await;
    replace(&crds, &without_schema(Egg::crd())).await;
    replace(&crds, &without_schema(EggAssignment::crd())).await;
    let eggs = ApiResource::erase::<Egg>(&());
    let bad = [
        ("number", json!({"podSelector": {}, "egress": [{"to": [{"cidr": 7}]}]})),
        ("no-selector", json!({"egress": []})),
        ("text", json!("nonsense")),
        ("list", json!([1, 2, 3])),
    ];
    for (name, spec) in &bad {
        store(&world, &eggs, name, json!({}), spec.clone()).await;
    }
    let ours =
        json!({"labels": {"app.kubernetes.io/managed-by": "l7egg-operator", "l7egg.dev/node": "fake-1"}});
    store(&world, &ApiResource::erase::<EggAssignment>(&()), "stray", ours, json!({"node": 7})).await;

    world.start_operator().await;
    world.apply_egg("good", egg_spec(json!({}), "10.0.0.0/8")).await;
    world.expect_pods("good.fake-1", &["a"]).await;
    // Typed clients cannot read a list with such objects, but one of them by its status.
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &eggs);
    for (name, _) in &bad {
        let message = eventually(&format!("{name} is refused"), || async {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            let status = serde_json::from_value(object.data["status"].clone()).unwrap_or_default();
            match condition(&status, "Accepted") {
                Some(accepted) if accepted.reason == "Malformed" => Ok(accepted.message.clone()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        println!("{name}: {message}");
    }
    eventually("the malformed assignment is removed", || async {
        let names = world.assignment_names_untyped().await;
        if names == ["good.fake-1"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;

    // With the schema back, their status can no longer be written; an event can.
    world.stop_operator().await;
    replace(&crds, &Egg::crd()).await;
    replace(&crds, &EggAssignment::crd()).await;
    world.start_operator().await;
    world.make_pod("b", "fake-2", json!({})).await;
    world.expect_pods("good.fake-2", &["b"]).await;
    world.apply_egg("good", egg_spec(json!({}), "192.0.2.0/24")).await;
    eventually("the good Egg's edit is in force", || async {
        let assignment = world.assignments().get("good.fake-2").await.map_err(|error| error.to_string())?;
        if assignment.spec.egg.generation == 2 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    eventually("an event tells of the malformed one", || async {
        let reasons = world.event_reasons("number").await;
        if reasons.iter().any(|reason| reason == "Rejected") { Ok(()) } else { Err(format!("{reasons:?}")) }
    })
    .await;
    for (name, _) in &bad {
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }
    world.end().await;
}
