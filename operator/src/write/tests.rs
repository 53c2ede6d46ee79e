//! Requests to an API server that has another manager's pod in every EggAssignment.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use kube::client::Body;
use l7egg_crds::{AssignedPod, EggReference, PolicySpec};

use super::*;

fn pod(name: &str) -> AssignedPod {
    let [namespace, uid] = ["shop", name].map(str::to_owned);
    AssignedPod { namespace, name: name.to_owned(), uid, ..AssignedPod::default() }
}

fn assignment(pods: &[&str]) -> Assignment {
    Assignment {
        node: "n1".to_owned(),
        egg: EggReference {
            kind: EggKind::Egg,
            namespace: Some("shop".to_owned()),
            name: "web".to_owned(),
            uid: "u".to_owned(),
            generation: 1,
        },
        policy: Arc::new(PolicySpec::default()),
        shares: Vec::new(),
        host: None,
        pods: pods.iter().map(|name| pod(name)).collect(),
    }
}

/// An API server in which these pods come before those that are applied, and the patches that it was sent.
fn server(before: &[&str]) -> (Client, Arc<Mutex<Vec<Value>>>) {
    let patches = Arc::new(Mutex::new(Vec::new()));
    let (log, before) = (patches.clone(), before.iter().map(|name| pod(name)).collect::<Vec<_>>());
    let stored = Arc::new(Mutex::new(Value::Null));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (log, before, stored) = (log.clone(), before.clone(), stored.clone());
        async move {
            let bytes = request.into_body().collect_bytes().await.unwrap();
            let patch: Value = serde_json::from_slice(&bytes).unwrap();
            let mut stored = stored.lock().unwrap();
            if patch.is_array() {
                stored["spec"] = patch[1]["value"].clone();
            } else {
                *stored = patch.clone();
                stored["metadata"]["resourceVersion"] = json!("7");
                let mut pods = before;
                for pod in EggAssignmentSpec::deserialize(&patch["spec"]).unwrap().pods {
                    if !pods.contains(&pod) {
                        pods.push(pod);
                    }
                }
                stored["spec"]["pods"] = json!(pods);
            }
            log.lock().unwrap().push(patch);
            Ok::<_, Infallible>(http::Response::new(Body::from(stored.to_string().into_bytes())))
        }
    });
    (Client::new(service, "default"), patches)
}

async fn apply_pods(client: Client, pods: &[&str]) -> Observed {
    let key = ObjectKey::new("shop", "web.n1");
    match write(client, Write::Apply(key, assignment(pods))).await {
        Ok(Written::Applied(observed)) => *observed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_order_of_the_pods_is_the_same() {
    let (client, patches) = server(&["b"]);
    let observed = apply_pods(client, &["a", "b"]).await;
    assert_eq!(observed.assignment, Some(assignment(&["a", "b"])));
    assert_eq!(patches.lock().unwrap().len(), 1);
    // What counts is that each is there once, as it is to be.
    assert_ne!(assignment(&["a", "b"]), assignment(&["a", "c"]));
    assert_ne!(assignment(&["a", "b"]), assignment(&["a", "a"]));
    assert_ne!(assignment(&["a", "a"]), assignment(&["a", "b"]));
    let mut moved = assignment(&["b", "a"]);
    moved.pods[0].host_network = true;
    assert_ne!(assignment(&["a", "b"]), moved);
}

#[tokio::test]
async fn what_others_added_is_taken_away() {
    let (client, patches) = server(&["foreign"]);
    let observed = apply_pods(client, &["a"]).await;
    assert_eq!(observed.assignment, Some(assignment(&["a"])));
    let patches = patches.lock().unwrap();
    assert_eq!(patches.len(), 2);
    assert_eq!(patches[1][0], json!({"op": "add", "path": "/metadata/resourceVersion", "value": "7"}));
}
