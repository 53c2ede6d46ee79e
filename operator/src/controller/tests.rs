//! The control loop against an API server that only writes down what it is asked.

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
    leads: watch::Sender<bool>,
    events: mpsc::Receiver<(Event, ObjectReference)>,
    requests: Arc<Mutex<Vec<String>>>,
    /// What the API server answers, if not 200.
    code: Arc<AtomicU16>,
    /// To what it never answers, by how the path ends.
    silent: Arc<Mutex<Option<&'static str>>>,
    shutdown: CancellationToken,
}

fn start(leads: bool) -> Bench {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let code = Arc::new(AtomicU16::new(200));
    let silent = Arc::new(Mutex::new(None));
    let (log, answer, never) = (requests.clone(), code.clone(), silent.clone());
    let server = tower::service_fn(move |request: http::Request<Body>| {
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
    let (leads_sender, leads) = watch::channel(leads);
    let (events_sender, events) = mpsc::channel(100);
    let health = Arc::new(Health::new(vec![]));
    let connections = Connections { news, leads, events: events_sender, health, metrics: Metrics::default() };
    let shutdown = CancellationToken::new();
    tokio::spawn(Controller::new(Client::new(server, "default"), connections, 4).run(shutdown.clone()));
    Bench { news: news_sender, leads: leads_sender, events, requests, code, silent, shutdown }
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
        tokio::time::sleep(Duration::from_millis(200)).await;
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

#[tokio::test]
async fn nothing_is_written_before_all_lists_are_in() {
    let bench = start(true);
    // First the assignments: without its Egg, every one of them would look like a stray.
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Set(stray()))).await;
    assert_eq!(bench.requests().await, [""; 0]);
    bench.tell_all_but_assignments().await;
    assert_eq!(bench.requests().await, [""; 0]);
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [DELETE, APPLY, STATUS]);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn one_that_does_not_lead_knows_and_does_not_write() {
    let bench = start(false);
    bench.tell_all_but_assignments().await;
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [""; 0]);
    bench.leads.send(true).unwrap();
    assert_eq!(bench.requests().await, [APPLY, STATUS]);
    bench.leads.send(false).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.tell(News::Egg(Change::Gone(EggKey::egg("shop", "web")))).await;
    assert_eq!(bench.requests().await, [""; 0]);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_new_list_without_an_object_is_news_of_its_end() {
    let mut bench = start(true);
    bench.tell_all_but_assignments().await;
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [APPLY, STATUS]);
    assert_eq!(bench.events.recv().await.unwrap().0.reason, "Accepted");
    bench.tell(News::Pod(Change::Listing)).await;
    assert_eq!(bench.requests().await, [""; 0], "half a list says nothing");
    bench.tell(News::Pod(Change::Listed)).await;
    assert_eq!(
        bench.requests().await,
        ["DELETE /apis/l7egg.dev/v1alpha1/namespaces/shop/eggassignments/web.n1", STATUS]
    );
    bench.shutdown.cancel();
}

#[tokio::test]
async fn what_an_egg_has_stays_until_it_is_judged_and_the_others_do_not_wait() {
    let bench = start(true);
    bench.tell_all_but_assignments().await;
    bench.tell(News::Egg(Change::Present(EggKey::egg("shop", "stray")))).await;
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Set(stray()))).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [APPLY, STATUS]);
    bench.tell(News::Egg(Change::Gone(EggKey::egg("shop", "stray")))).await;
    assert_eq!(bench.requests().await, [DELETE]);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_list_is_believed_though_versions_went_back() {
    let bench = start(true);
    bench.tell_all_but_assignments().await;
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Set(Observed { resource_version: 900, ..assigned() }))).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [STATUS]);
    // etcd was restored from a backup of before the pod was assigned.
    let mut restored = Observed { resource_version: 500, ..assigned() };
    restored.assignment.as_mut().unwrap().pods.clear();
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Set(restored))).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [APPLY]);
    bench.shutdown.cancel();
}

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

#[tokio::test]
async fn a_pod_that_is_relabelled_all_the_time_costs_ever_fewer_writes() {
    let bench = start(true);
    bench.tell_all().await;
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        bench.tell(News::Pod(Change::Set(named("b")))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        bench.tell(News::Pod(Change::Gone(named("b").key()))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let requests = bench.requests().await;
    let count = |what: &str| requests.iter().filter(|request| *request == what).count();
    // One of each was before. Assignments: four at once, then after 0.1 and 0.3 s, then every quarter of a second.
    assert!((5..=14).contains(&count(APPLY)), "{requests:?}");
    assert!((3..=6).contains(&count(STATUS)), "{requests:?}");
    bench.shutdown.cancel();
}

#[tokio::test]
async fn deleting_and_making_anew_is_writing_as_well() {
    let bench = start(true);
    bench.tell_all().await;
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        bench.tell(News::Egg(Change::Gone(EggKey::egg("shop", "web")))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        bench.tell(News::Egg(Change::Set(egg(json!({"podSelector": {}}))))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let requests = bench.requests().await;
    assert!(requests.len() <= 7 + 6, "{requests:?}");
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_part_of_a_shared_rate_has_time_and_a_new_pod_has_not() {
    let bench = start(true);
    bench.tell_all().await;
    let shaping = json!({"egress": {"rate": "50M", "scope": "Egg"}});
    let mut edited = egg(json!({"podSelector": {}, "shaping": shaping}));
    edited.generation = 2;
    bench.tell(News::Egg(Change::Set(edited))).await;
    bench.requests().await;
    for number in 0..50 {
        let elsewhere = crate::index::Pod { node: "n2".to_owned(), ..named(&format!("b{number}")) };
        bench.tell(News::Pod(Change::Set(elsewhere))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let applied = |requests: Vec<String>| requests.iter().filter(|request| *request == APPLY).count();
    assert!(applied(bench.requests().await) <= 1, "half a second and one second after two writes");
    bench.tell(News::Pod(Change::Set(named("new")))).await;
    assert_eq!(applied(bench.requests().await), 1);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn an_api_server_that_has_too_much_to_do_is_asked_less() {
    let bench = start(true);
    bench.tell_all().await;
    bench.code.store(429, Ordering::Relaxed);
    for number in 0..1_000 {
        let elsewhere = crate::index::Pod { node: format!("m{number}"), ..named(&format!("b{number}")) };
        bench.tell(News::Pod(Change::Set(elsewhere))).await;
    }
    let end = Instant::now() + Duration::from_millis(1_800);
    while Instant::now() < end {
        // Edits are no reason to ask more.
        bench.tell(News::Pod(Change::Set(named("b")))).await;
        bench.tell(News::Pod(Change::Gone(named("b").key()))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = bench.requests().await;
    // As many as may be on their way, and one after a second.
    assert!((4..=5).contains(&refused.len()), "{refused:?}");
    // It has time again: one goes ahead, and when it is taken the others follow.
    bench.code.store(200, Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(30);
    let mut written = 0;
    while written < 1_000 && Instant::now() < end {
        written += bench.requests().await.len();
    }
    assert!(written >= 1_000, "{written}");
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_request_that_is_never_answered_holds_nobody_up_after_a_refusal() {
    let bench = start(true);
    bench.tell_all().await;
    *bench.silent.lock().unwrap() = Some("web.m0");
    for number in 0..3 {
        bench.code.store(if number == 1 { 503 } else { 200 }, Ordering::Relaxed);
        let node = format!("m{number}");
        bench.tell(News::Pod(Change::Set(crate::index::Pod { node: node.clone(), ..named(&node) }))).await;
        let requests = bench.requests().await;
        let web = APPLY.replace("web.n1", &format!("web.{node}"));
        assert_eq!(requests.contains(&web), number < 2, "{requests:?}");
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let requests = bench.requests().await;
    for node in ["web.m1", "web.m2"] {
        assert!(requests.contains(&APPLY.replace("web.n1", node)), "{requests:?}");
    }
    bench.shutdown.cancel();
}

#[tokio::test]
async fn events_of_one_egg_have_a_pace() {
    let mut bench = start(true);
    bench.tell_all().await;
    for generation in 2..8 {
        let mut edited = egg(json!({"podSelector": {}}));
        edited.generation = generation;
        let message = format!("wrong in generation {generation}");
        edited.spec = Err(crate::index::Rejection { reason: "Invalid", message, selection: None });
        bench.tell(News::Egg(Change::Set(edited))).await;
        tokio::time::sleep(Duration::from_millis(if generation < 4 { 50 } else { 500 })).await;
    }
    bench.shutdown.cancel();
    let mut reasons = Vec::new();
    while let Some((event, _)) = bench.events.recv().await {
        reasons.push(event.reason);
    }
    assert_eq!(reasons, ["Accepted", "Rejected", "Rejected"]);
}

#[tokio::test]
async fn nothing_new_comes_into_a_namespace_that_ends() {
    let bench = start(true);
    bench.tell_all().await;
    bench.tell(News::Namespace(Change::Set(namespace(true)))).await;
    let late = crate::index::Pod { node: "n2".to_owned(), ..named("late") };
    bench.tell(News::Pod(Change::Set(late))).await;
    bench.tell(News::Pod(Change::Set(named("b")))).await;
    // What is there may change, and may be deleted.
    assert_eq!(bench.requests().await, [APPLY, STATUS]);
    // Another namespace of that name, of which its Eggs and pods were heard before.
    bench.tell(News::Namespace(Change::Gone("shop".to_owned()))).await;
    assert_eq!(bench.requests().await, [APPLY.replace("web.n1", "web.n2")]);
    bench.shutdown.cancel();
}
