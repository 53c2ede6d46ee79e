//! The control loop against an API server that only writes down what it is asked.

mod lists;
mod pace;
mod still;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use kube::api::DynamicObject;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::index::{NamedNamespace, ObjectKey, Observed};
use crate::read;
use crate::watch::Change;

/// A control loop, its connections, and the requests that it made.
struct Bench {
    news: mpsc::Sender<News>,
    leads: watch::Sender<Term>,
    events: mpsc::Receiver<(Event, ObjectReference)>,
    requests: Arc<Mutex<Vec<String>>>,
    /// When each request came that there ever was.
    times: Arc<Mutex<Vec<Instant>>>,
    /// What the API server answers, if not 200.
    code: Arc<AtomicU16>,
    /// To what it never answers, by how the path ends.
    silent: Arc<Mutex<Option<&'static str>>>,
    shutdown: CancellationToken,
}

fn start(leads: bool) -> Bench {
    let (controller, bench) = connected(leads);
    tokio::spawn(controller.run(bench.shutdown.clone()));
    bench
}

fn connected(leads: bool) -> (Controller, Bench) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let code = Arc::new(AtomicU16::new(200));
    let silent = Arc::new(Mutex::new(None));
    let times = Arc::new(Mutex::new(Vec::new()));
    let (log, clock, answer, never) = (requests.clone(), times.clone(), code.clone(), silent.clone());
    let server = tower::service_fn(move |request: http::Request<Body>| {
        clock.lock().unwrap().push(Instant::now());
        log.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        let code = answer.load(Ordering::Relaxed);
        let is_silent = never.lock().unwrap().is_some_and(|end| request.uri().path().ends_with(end));
        async move {
            if is_silent {
                std::future::pending::<()>().await;
            }
            let bytes = request.into_body().collect_bytes().await.unwrap();
            let answer = if code == 200 { stored(&bytes) } else { b"no".to_vec() };
            Ok::<_, Infallible>(http::Response::builder().status(code).body(Body::from(answer)).unwrap())
        }
    });
    let (news_sender, news) = mpsc::channel(100);
    let (leads_sender, leads) = watch::channel(if leads { Term::Endless } else { Term::None });
    let (events_sender, events) = mpsc::channel(100);
    let health = Arc::new(Health::new(vec![]));
    let connections = Connections { news, leads, events: events_sender, health, metrics: Metrics::default() };
    let shutdown = CancellationToken::new();
    let controller = Controller::new(Client::new(server, "default"), connections, 4);
    let (news, leads) = (news_sender, leads_sender);
    (controller, Bench { news, leads, events, requests, times, code, silent, shutdown })
}

/// The object after a request: what was sent, or what a JSON Patch puts into it.
fn stored(sent: &[u8]) -> Vec<u8> {
    let Ok(Value::Array(operations)) = serde_json::from_slice(sent) else { return sent.to_vec() };
    let status = operations.iter().find(|operation| operation["path"] == "/status");
    json!({"metadata": {}, "status": status.map(|operation| &operation["value"])}).to_string().into_bytes()
}

impl Bench {
    async fn tell(&self, news: News) {
        self.news.send(news).await.unwrap();
    }

    /// All lists but that of EggAssignments, with an Egg and a pod that it selects.
    async fn tell_all_but_assignments(&self) {
        self.tell(News::Egg(Change::Listing)).await;
        self.tell(News::Egg(Change::Set(egg(json!({"podSelector": {}}))))).await;
        self.tell(News::Egg(Change::Listed)).await;
        self.tell(News::ClusterEgg(Change::Listing)).await;
        self.tell(News::ClusterEgg(Change::Listed)).await;
        self.tell(News::Pod(Change::Listing)).await;
        self.tell(News::Pod(Change::Set(pod()))).await;
        self.tell(News::Pod(Change::Listed)).await;
        self.tell(News::Namespace(Change::Listing)).await;
        self.tell(News::Namespace(Change::Set(namespace(false)))).await;
        self.tell(News::Namespace(Change::Listed)).await;
        self.tell(News::Node(Change::Listing)).await;
        self.tell(News::Node(Change::Listed)).await;
    }

    /// The requests so far, once the loop has had time to make them.
    async fn requests(&self) -> Vec<String> {
        // In pieces, so that a machine that stands still for a while leaves the loop, which is on the same thread, its turns.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut requests = std::mem::take(&mut *self.requests.lock().unwrap());
        requests.sort();
        requests
    }
}

fn namespace(ends: bool) -> NamedNamespace {
    NamedNamespace { name: "shop".to_owned(), ends, ..NamedNamespace::default() }
}

fn egg(spec: Value) -> crate::index::Egg {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg",
        "metadata": {"namespace": "shop", "name": "web", "uid": "u", "generation": 1}, "spec": spec,
    }))
    .unwrap();
    read::egg(&object).unwrap()
}

fn pod() -> crate::index::Pod {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "a", "uid": "p"}, "spec": {"nodeName": "n1"},
    });
    read::pod(serde_json::from_value(object).unwrap(), true).unwrap()
}

/// One that no Egg asks for.
fn stray() -> Observed {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "l7egg.dev/v1alpha1", "kind": "EggAssignment",
        "metadata": {"namespace": "shop", "name": "stray.n1", "uid": "s"}, "spec": {},
    }))
    .unwrap();
    read::observed(&object).unwrap()
}

/// The one that is to be, as it is written.
fn assigned() -> Observed {
    let mut index = Index::default();
    index.apply_egg(egg(json!({"podSelector": {}})));
    index.apply_pod(pod());
    let key = ObjectKey::new("shop", "web.n1");
    let object = crate::write::object(&key, &index.desired(&key).unwrap());
    read::observed(&serde_json::from_value(object).unwrap()).unwrap()
}

const APPLY: &str = "PATCH /apis/l7egg.dev/v1alpha1/namespaces/shop/eggassignments/web.n1";
const DELETE: &str = "DELETE /apis/l7egg.dev/v1alpha1/namespaces/shop/eggassignments/stray.n1";
const STATUS: &str = "PATCH /apis/l7egg.dev/v1alpha1/namespaces/shop/eggs/web/status";

impl Bench {
    /// All lists; what follows from them is written.
    async fn tell_all(&self) {
        self.tell_all_but_assignments().await;
        self.tell(News::Assignment(Change::Listing)).await;
        self.tell(News::Assignment(Change::Listed)).await;
        assert_eq!(self.requests().await, [APPLY, STATUS]);
    }
}

fn named(name: &str) -> crate::index::Pod {
    let mut pod = pod();
    (pod.assigned.name, pod.assigned.uid) = (name.to_owned(), name.to_owned());
    pod
}
