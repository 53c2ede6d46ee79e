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
    let (controller, bench) = connected(leads);
    tokio::spawn(controller.run(bench.shutdown.clone()));
    bench
}

fn connected(leads: bool) -> (Controller, Bench) {
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
    let controller = Controller::new(Client::new(server, "default"), connections, 4);
    (controller, Bench { news: news_sender, leads: leads_sender, events, requests, code, silent, shutdown })
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

/// A control loop that turns when it is told to, at any time.
struct Still {
    controller: Controller,
    bench: Bench,
    now: Instant,
}

impl Still {
    /// With an Egg whose rate its pods share, and one of these; all is written.
    async fn start() -> Self {
        let (mut controller, bench) = connected(true);
        (controller.settled, controller.writes) = (true, true);
        let mut still = Still { controller, bench, now: Instant::now() };
        still.tell(News::Egg(Change::Set(shaped(1, "u"))));
        still.tell(News::Namespace(Change::Set(namespace(false))));
        still.tell(News::Pod(Change::Set(pod())));
        assert_eq!(still.requests_after(0).await, [APPLY, STATUS]);
        still
    }

    fn tell(&mut self, news: News) {
        self.controller.take_in(news);
    }

    fn tell_pod(&mut self, name: &str, node: &str) {
        self.tell(News::Pod(Change::Set(crate::index::Pod { node: node.to_owned(), ..named(name) })));
    }

    /// The requests that are made so much later.
    async fn requests_after(&mut self, milliseconds: u64) -> Vec<String> {
        self.now += Duration::from_millis(milliseconds);
        self.controller.turn(self.now);
        while let Some(done) = self.controller.running.join_next().await {
            self.controller.finish(done.unwrap());
            self.controller.turn(self.now);
        }
        let mut requests = std::mem::take(&mut *self.bench.requests.lock().unwrap());
        requests.sort();
        requests
    }

    /// Pods come and go, until the status has to wait for more than a second; then there is something to tell.
    async fn churn(&mut self) {
        for number in 0..8 {
            self.tell_pod(&format!("churn{number}"), "n1");
            let due = self.controller.paces.wait(&status(), &limits::STATUS, self.now);
            self.now = due.unwrap_or(self.now) + Duration::from_millis(250);
            assert!(self.requests_after(0).await.contains(&STATUS.to_owned()));
        }
        self.tell_pod("last", "n1");
        assert_eq!(self.requests_after(250).await, [APPLY]);
        let due = self.controller.paces.wait(&status(), &limits::STATUS, self.now);
        assert!(due > Some(self.now + Duration::from_secs(2)));
    }

    /// Pods come elsewhere, until a share has to wait for more than a second; then one waits.
    async fn share(&mut self) {
        for number in 0..4 {
            self.tell_pod(&format!("shares{number}"), "n2");
            let due = self.controller.paces.wait(&assignment(), &limits::SHARES, self.now);
            self.now = due.unwrap_or(self.now);
            assert!(self.requests_after(0).await.contains(&APPLY.to_owned()));
        }
        self.share_waits("last").await;
    }

    async fn share_waits(&mut self, name: &str) {
        self.tell_pod(name, "n2");
        assert!(!self.requests_after(300).await.contains(&APPLY.to_owned()));
    }

    /// What is said to be wrong with the Egg's assignments.
    fn troubles(&mut self) -> Vec<String> {
        let summary = self.controller.index.summary(&EggKey::egg("shop", "web")).unwrap();
        let subjects = summary.tally.pending.into_iter().map(|trouble| trouble.subject);
        subjects.filter(|subject| subject.starts_with("the assignment")).collect()
    }
}

fn shaped(generation: i64, uid: &str) -> crate::index::Egg {
    let shaped = json!({"podSelector": {}, "shaping": {"egress": {"rate": "50M", "scope": "Egg"}}});
    crate::index::Egg { generation, uid: uid.to_owned(), ..egg(shaped) }
}

fn status() -> Task {
    Task::Status(EggKey::egg("shop", "web"))
}

fn assignment() -> Task {
    Task::Assignment(ObjectKey::new("shop", "web.n1"))
}

#[tokio::test]
async fn who_edits_does_not_wait_because_pods_come_and_go() {
    let mut still = Still::start().await;
    still.churn().await;
    still.tell(News::Egg(Change::Set(shaped(2, "u"))));
    assert!(still.requests_after(1).await.contains(&STATUS.to_owned()));
}

#[tokio::test]
async fn an_egg_that_is_made_anew_is_told_of_within_a_second() {
    let mut still = Still::start().await;
    still.churn().await;
    let mut told = 0;
    for number in 0..100 {
        still.tell(News::Egg(Change::Gone(EggKey::egg("shop", "web"))));
        still.tell(News::Egg(Change::Set(shaped(1, &format!("v{number}")))));
        let requests = still.requests_after(100).await;
        told += requests.iter().filter(|request| *request == STATUS).count();
        assert!(number != 10 || told > 0);
    }
    assert!((8..=10).contains(&told), "{told}");
}

#[tokio::test]
async fn what_somebody_takes_away_or_changes_is_put_back_though_a_share_waits() {
    let mut still = Still::start().await;
    still.share().await;
    still.tell(News::Assignment(Change::Gone(ObjectKey::new("shop", "web.n1"))));
    assert!(still.requests_after(0).await.contains(&APPLY.to_owned()));
    // The label that its agent finds it by, or what it says.
    let observed = |still: &Still| {
        let observed = still.controller.index.observed(&ObjectKey::new("shop", "web.n1"));
        Observed { resource_version: 10, ..observed.unwrap().clone() }
    };
    still.share_waits("unlabelled").await;
    let unlabelled = Observed { labelled: false, ..observed(&still) };
    still.tell(News::Assignment(Change::Set(unlabelled)));
    assert!(still.requests_after(0).await.contains(&APPLY.to_owned()));
    still.share_waits("changed").await;
    let mut changed = observed(&still);
    changed.assignment.as_mut().unwrap().pods.clear();
    still.tell(News::Assignment(Change::Set(changed)));
    assert!(still.requests_after(0).await.contains(&APPLY.to_owned()));
    // But a share that somebody changes is a share.
    still.share_waits("share").await;
    let mut share = observed(&still);
    share.assignment.as_mut().unwrap().shares.clear();
    still.tell(News::Assignment(Change::Set(share)));
    assert!(!still.requests_after(300).await.contains(&APPLY.to_owned()));
}

#[tokio::test]
async fn what_agents_report_does_not_hasten_what_was_refused() {
    let mut still = Still::start().await;
    still.bench.code.store(422, Ordering::Relaxed);
    still.tell_pod("b", "n1");
    assert!(still.requests_after(1_000).await.contains(&APPLY.to_owned()));
    let observed = still.controller.index.observed(&ObjectKey::new("shop", "web.n1")).unwrap().clone();
    for number in 1..4 {
        let mut reported = Observed { resource_version: 10 + number, ..observed.clone() };
        reported.status.observed_generation = i64::try_from(number).ok();
        still.tell(News::Assignment(Change::Set(reported)));
        // Just before it is tried again anyway.
        still.now = still.controller.queue.next_due().unwrap() - Duration::from_millis(1);
        assert!(!still.requests_after(0).await.contains(&APPLY.to_owned()));
    }
}

#[tokio::test]
async fn what_failed_as_the_api_server_was_away_has_no_pace() {
    let mut still = Still::start().await;
    still.bench.code.store(500, Ordering::Relaxed);
    still.tell_pod("b", "n2");
    let mut attempts = Vec::new();
    for _ in 0..8 {
        attempts.extend(still.requests_after(1_000).await);
    }
    for what in [APPLY, STATUS] {
        assert!(attempts.iter().filter(|attempt| *attempt == what).count() >= 6, "{attempts:?}");
    }
    still.bench.code.store(200, Ordering::Relaxed);
    still.requests_after(2_000).await;
    let due = still.controller.paces.wait(&status(), &limits::STATUS, still.now);
    assert!(due <= Some(still.now + Duration::from_millis(200)));
    let due = still.controller.paces.wait(&assignment(), &limits::SHARES, still.now);
    assert!(due <= Some(still.now + Duration::from_secs(1)));
}

#[tokio::test]
async fn an_error_is_told_as_long_as_there_is_something_to_write() {
    let mut still = Still::start().await;
    still.bench.code.store(422, Ordering::Relaxed);
    still.tell_pod("b", "n1");
    still.requests_after(1_000).await;
    assert_eq!(still.troubles(), ["the assignment for n1"]);
    still.tell(News::Pod(Change::Gone(named("b").key())));
    still.requests_after(1_000).await;
    assert_eq!(still.troubles(), [""; 0], "it is as it is to be");
    still.tell_pod("c", "n2");
    still.requests_after(1_000).await;
    let of_n2 = "the assignment for n2".to_owned();
    assert!(still.troubles().contains(&of_n2));
    still.tell(News::Pod(Change::Gone(named("c").key())));
    still.requests_after(1_000).await;
    still.tell_pod("c", "n2");
    still.controller.index.take_changes();
    assert!(
        !still.troubles().contains(&of_n2),
        "what was said of one that was not to be any more is forgotten"
    );
    still.tell_pod("d", "n2");
    still.requests_after(1_000).await;
    still.tell(News::Namespace(Change::Set(namespace(true))));
    still.tell_pod("e", "n2");
    still.requests_after(1_000).await;
    assert!(still.troubles().contains(&of_n2), "too late for it");
}
