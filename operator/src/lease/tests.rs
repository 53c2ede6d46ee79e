use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// An API server that has one lease at most.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    /// How long it takes for each request.
    pause: Arc<Mutex<Duration>>,
    /// The next write is answered so much later than it is stored.
    late: Arc<Mutex<Duration>>,
}

impl Server {
    fn with_pause(pause: Duration) -> Self {
        let server = Server::default();
        server.takes(pause);
        server
    }

    fn takes(&self, pause: Duration) {
        *self.pause.lock().unwrap() = pause;
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move {
                let pause = *server.pause.lock().unwrap();
                tokio::time::sleep(pause).await;
                let is_read = request.method() == http::Method::GET;
                let sent = request.into_body().collect_bytes().await.unwrap();
                let (code, answer) = if is_read { server.read() } else { server.write(&sent) };
                if !is_read {
                    let late = std::mem::take(&mut *server.late.lock().unwrap());
                    tokio::time::sleep(late).await;
                }
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn read(&self) -> (u16, Value) {
        match &*self.lease.lock().unwrap() {
            Some(lease) => (200, lease.clone()),
            None => (404, json!({"code": 404, "reason": "NotFound", "message": "no lease"})),
        }
    }

    fn write(&self, sent: &[u8]) -> (u16, Value) {
        let mut lease = self.lease.lock().unwrap();
        let mut new: Value = serde_json::from_slice(sent).unwrap();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        let known = lease.as_ref().map(version).unwrap_or_default();
        if version(&new) != known {
            return (409, json!({"code": 409, "reason": "Conflict", "message": "another version"}));
        }
        let number: u64 = known.as_str().unwrap_or("0").parse().unwrap();
        new["metadata"]["resourceVersion"] = json!((number + 1).to_string());
        (200, lease.insert(new).clone())
    }

    fn holder(&self) -> Value {
        self.read().1["spec"]["holderIdentity"].clone()
    }

    /// Somebody writes another holder into the lease.
    fn seize(&self) {
        let mut lease = self.read().1;
        lease["spec"]["holderIdentity"] = json!("somebody");
        lease["spec"]["leaseDurationSeconds"] = json!(60);
        assert_eq!(self.write(lease.to_string().as_bytes()).0, 200);
    }
}

struct Running {
    leads: watch::Receiver<Term>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(server: &Server, identity: &str) -> Running {
    let (sender, leads) = watch::channel(Term::None);
    let shutdown = CancellationToken::new();
    let candidate = Candidate::new(server.client(), "default", identity);
    let task = tokio::spawn(candidate.run(sender, shutdown.clone()));
    Running { leads, shutdown, task }
}

impl Running {
    /// How long it takes until it leads, or does not.
    async fn until(&mut self, leads: bool) -> Duration {
        let start = Instant::now();
        let waited = timeout(Duration::from_secs(120), self.leads.wait_for(|it| it.is_on() == leads)).await;
        waited.expect("in two minutes").expect("it runs");
        start.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_api_server_costs_nobody_the_lease() {
    let server = Server::with_pause(RENEWAL - Duration::from_millis(10));
    let mut first = start(&server, "first");
    first.until(true).await;
    let mut lost = first.leads.clone();
    let lost = timeout(Duration::from_secs(60), lost.wait_for(|leads| !leads.is_on())).await;
    assert!(lost.is_err(), "it leads all the time");
    first.shutdown.cancel();
    first.task.await.unwrap();
    assert_eq!(server.holder(), "", "and gives the lease back");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_stored_and_not_answered_costs_nobody_the_lease() {
    let server = Server::with_pause(Duration::from_millis(400));
    let mut first = start(&server, "first");
    first.until(true).await;
    *server.late.lock().unwrap() = RENEWAL;
    let mut lost = first.leads.clone();
    let lost = timeout(Duration::from_secs(60), lost.wait_for(|leads| !leads.is_on())).await;
    assert!(lost.is_err(), "it leads all the time");
}

#[tokio::test(start_paused = true)]
async fn another_writes_before_new_pods_are_let_go() {
    for after in (0..2000).step_by(130).map(Duration::from_millis) {
        let server = Server::with_pause(Duration::from_millis(100));
        let mut first = start(&server, "first");
        first.until(true).await;
        let mut second = start(&server, "second");
        tokio::time::sleep(Duration::from_secs(5) + after).await;
        // As a node ends that loses its power. What was renewed last was renewed before.
        first.task.abort();
        let took = second.until(true).await;
        assert!(took + INTERVAL < l7egg_crds::HOLD_FOR - Duration::from_secs(1), "{took:?}");
        assert!(took + INTERVAL >= DURATION, "{took:?}");
        second.task.abort();
    }
}

#[test]
fn the_holder_stops_before_another_may_begin() {
    assert!(2 * RENEWAL <= DEADLINE && INTERVAL <= RENEWAL);
    assert!(DEADLINE + Duration::from_secs(2) <= DURATION);
    // Seen an interval late, and with a second for each of two requests, there is still one left.
    assert!(INTERVAL + DURATION + 2 * Duration::from_secs(1) < l7egg_crds::HOLD_FOR);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_it_stops_before_another_may_begin() {
    let server = Server::default();
    let mut first = start(&server, "first");
    first.until(true).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.takes(Duration::from_secs(3600));
    assert!(first.until(false).await <= DEADLINE);
    server.takes(Duration::ZERO);
    assert!(first.until(true).await <= 2 * RENEWAL + INTERVAL, "it is its own");
}

#[tokio::test(start_paused = true)]
async fn who_was_stopped_stands_by_until_it_has_asked() {
    let server = Server::with_pause(Duration::from_millis(100));
    let mut first = start(&server, "first");
    first.until(true).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    tokio::time::advance(DURATION).await;
    assert!(first.until(false).await < Duration::from_millis(100), "before anybody answers");
    assert!(first.until(true).await <= Duration::from_millis(210));
}

#[tokio::test(start_paused = true)]
async fn whose_lease_is_taken_away_stops_at_once() {
    let server = Server::default();
    let mut first = start(&server, "first");
    first.until(true).await;
    server.seize();
    assert!(first.until(false).await <= INTERVAL);
    let again = first.until(true).await;
    assert!((59..=61).contains(&again.as_secs()), "as long as that one has said: {again:?}");
}

#[tokio::test]
async fn an_attempt_ends_with_the_deadline() {
    let begun = Instant::now();
    let candidate = |since: Option<Instant>| {
        let held = since.map(|since| Held { lease: Lease::default(), since });
        Candidate { held, ..Candidate::new(Server::default().client(), "default", "first") }
    };
    let after = |seconds| begun + Duration::from_secs(seconds);
    assert_eq!(candidate(None).at_most(DEADLINE, begun), DEADLINE);
    assert_eq!(candidate(Some(begun)).at_most(RENEWAL, after(1)), RENEWAL);
    assert_eq!(candidate(Some(begun)).at_most(RENEWAL, after(3)), Duration::from_secs(1));
    assert_eq!(candidate(Some(begun)).at_most(RENEWAL, after(5)), Duration::ZERO);
    assert_eq!(candidate(Some(begun)).next(after(1), after(1)), after(2));
    assert_eq!(candidate(Some(begun)).next(after(3), after(3)), after(4));
}

fn at(second: i64) -> MicroTime {
    MicroTime(Timestamp::from_second(second).unwrap())
}

#[test]
fn a_lease_is_anothers_until_it_runs_out() {
    let held = next("first", None, at(1));
    assert_eq!(others_for("first", &held), Duration::ZERO);
    assert_eq!(others_for("second", &held), DURATION);
    let given_back = LeaseSpec { holder_identity: Some(String::new()), ..held.clone() };
    assert_eq!(others_for("second", &given_back), Duration::ZERO);
    // Another kind of operator may ask for more time.
    let longer = LeaseSpec { lease_duration_seconds: Some(60), ..held };
    assert_eq!(others_for("second", &longer), Duration::from_secs(60));
}

#[test]
fn renewing_keeps_what_taking_over_changes() {
    let first = next("first", None, at(1));
    let renewed = next("first", Some(&first), at(9));
    assert_eq!((&renewed.acquire_time, &renewed.renew_time), (&Some(at(1)), &Some(at(9))));
    assert_eq!(renewed.lease_transitions, first.lease_transitions);
    let taken = next("second", Some(&renewed), at(30));
    assert_eq!(taken.acquire_time, Some(at(30)));
    assert_eq!(taken.lease_transitions, first.lease_transitions.map(|transitions| transitions + 1));
}
