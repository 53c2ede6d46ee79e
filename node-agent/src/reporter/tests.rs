//! Statuses and an API server.

use std::{collections::BTreeMap, sync::Mutex};

use axum::{extract::Path, http::StatusCode};

use serde_json::json;

use super::*;
use crate::report::Report;

pub(super) fn pod(uid: &str, state: PodState, message: &str) -> PodReport {
    PodReport { uid: uid.into(), state, reason: String::new(), message: message.into(), egress_limit: None }
}

pub(super) fn status(pods: &[PodReport]) -> EggAssignmentStatus {
    EggAssignmentStatus {
        observed_generation: Some(1),
        pods: pods.to_vec(),
        ..EggAssignmentStatus::default()
    }
}

fn report(uid: &str, status: EggAssignmentStatus, known: Option<EggAssignmentStatus>) -> Report {
    Report { uid: uid.into(), egg: None, pods: vec![], status, known }
}

fn one(report: Report) -> BTreeMap<AssignmentKey, Report> {
    BTreeMap::from([(AssignmentKey { namespace: "a".into(), name: "b".into() }, report)])
}

#[test]
fn only_what_differs_is_due() {
    let mut written = Written::default();
    let enforced = status(&[pod("p", PodState::Enforced, "")]);
    let reports = one(report("u", enforced.clone(), None));
    assert_eq!(written.due(&reports).len(), 1);
    written.note(reports.keys().next().unwrap(), "u", enforced.clone());
    assert!(written.due(&reports).is_empty());

    // An agent that starts anew finds what it wrote before.
    let known = one(report("u", enforced.clone(), Some(enforced.clone())));
    assert!(Written::default().due(&known).is_empty());
    // Made again under the same name, the object has no status.
    assert_eq!(written.due(&one(report("other", enforced.clone(), None))).len(), 1);
    // Somebody wrote over it.
    let over = one(report("u", enforced, Some(EggAssignmentStatus::default())));
    assert!(written.due(&over).is_empty());
    written.recheck();
    assert_eq!(written.due(&over).len(), 1);
}

#[test]
fn a_failure_is_told_once() {
    let before = status(&[pod("p", PodState::Failed, "x"), pod("q", PodState::Pending, "")]);
    let now = status(&[
        pod("p", PodState::Failed, "x, and another text"),
        pod("q", PodState::Failed, "y"),
        pod("r", PodState::Enforced, ""),
    ]);
    let uids = |failures: Vec<&PodReport>| failures.iter().map(|pod| pod.uid.clone()).collect::<Vec<_>>();
    assert_eq!(uids(new_failures(Some(&before), &now)), ["q"]);
    assert_eq!(uids(new_failures(None, &now)), ["p", "q"]);
}

/// An API server that refuses the first two statuses it is given, and every one of assignment `never`.
async fn api_server() -> (Client, Arc<Mutex<Vec<String>>>) {
    answers(|number, name| if number <= 2 || name == "never" { 500 } else { 200 }).await
}

/// One that answers so to each status that it is given, by its number and the assignment's name.
async fn answers(code: fn(usize, &str) -> u16) -> (Client, Arc<Mutex<Vec<String>>>) {
    let (client, asked, _) = answers_and_times(code).await;
    (client, asked)
}

/// The same, with when each status came.
async fn answers_and_times(
    code: fn(usize, &str) -> u16,
) -> (Client, Arc<Mutex<Vec<String>>>, Arc<Mutex<Vec<Instant>>>) {
    let (asked, times) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (log, clock) = (Arc::clone(&asked), Arc::clone(&times));
    let status = move |Path(name): Path<String>, body: String| async move {
        clock.lock().unwrap().push(Instant::now());
        let mut log = log.lock().unwrap();
        log.push(format!("{name} {body}"));
        let code = code(log.len(), &name);
        let message = if name == "remade" { NOT_APPLIED } else { "it is invalid" };
        let answer =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": code, "message": message});
        (StatusCode::from_u16(code).unwrap(), answer.to_string())
    };
    let path = "/apis/l7egg.dev/v1alpha1/namespaces/shop/eggassignments/{name}/status";
    let router = axum::Router::new().route(path, axum::routing::patch(status));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    (l7egg_daemon::client::connect(&config).unwrap(), asked, times)
}

#[tokio::test]
async fn a_status_is_tried_until_it_is_written_and_stops_no_other() {
    let (client, asked) = api_server().await;
    let key = |name: &str| AssignmentKey { namespace: "shop".into(), name: name.into() };
    let enforced = status(&[pod("p", PodState::Enforced, "")]);
    let reports = ["a", "never", "z"].map(|name| (key(name), report(name, enforced.clone(), None)));
    let outcome = Outcome { reports: BTreeMap::from(reports), ..Outcome::default() };
    let (sender, receiver) = watch::channel(Arc::new(outcome));
    tokio::spawn(run(client.clone(), receiver, Notices::new(client, "node1")));

    let asked = |name: &str| {
        let asked = asked.lock().unwrap();
        asked.iter().filter(|line| line.starts_with(&format!("{name} "))).count()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while asked("a") < 2 || asked("never") < 3 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(asked("z"), 1, "was written at once, and not again");
    assert_eq!(asked("a"), 2, "was written the second time, and not again");
    drop(sender);
}

#[tokio::test]
async fn what_is_told_of_an_assignment_is_told_to_no_other_of_its_name() {
    let (client, asked) = answers(|_, name| if name == "z" { 200 } else { 422 }).await;
    let enforced = status(&[pod("p", PodState::Enforced, "")]);
    let reports = ["invalid", "remade", "z"].map(|name| report(name, enforced.clone(), None)).into();
    let (_sender, receiver) = watch::channel(outcome(reports));
    tokio::spawn(run(client.clone(), receiver, Notices::new(client, "node1")));
    let deadline = Instant::now() + Duration::from_secs(10);
    let of = |name: &str| {
        let asked = asked.lock().unwrap();
        asked.iter().filter(|line| line.starts_with(&format!("{name} "))).cloned().collect::<Vec<_>>()
    };
    while of("invalid").len() < 2 {
        assert!(Instant::now() < deadline, "what is refused for what it says is tried again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((of("remade").len(), of("z").len()), (1, 1), "the watch will tell of the other");
    let test = r#"{"op":"test","path":"/metadata/uid","value":"z"}"#;
    assert!(of("z")[0].contains(test), "{:?}", of("z"));
}

#[tokio::test]
async fn what_is_refused_lets_no_other_wait() {
    let (client, asked) = api_server().await;
    let outcome = |names: &[&str]| {
        let key = |name: &str| AssignmentKey { namespace: "shop".into(), name: name.into() };
        let enforced = status(&[pod("p", PodState::Enforced, "")]);
        let reports = names.iter().map(|name| (key(name), report(name, enforced.clone(), None)));
        Arc::new(Outcome { reports: reports.collect(), ..Outcome::default() })
    };
    let (sender, receiver) = watch::channel(outcome(&["never"]));
    tokio::spawn(run(client.clone(), receiver, Notices::new(client, "node1")));
    let until = async |count: usize| {
        while asked.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // The pause after the third time is two seconds.
    until(3).await;
    sender.send_replace(outcome(&["never", "late"]));
    tokio::time::timeout(Duration::from_secs(1), until(4)).await.expect("it is written at once");
    assert!(asked.lock().unwrap()[3].starts_with("late "));
    until(5).await;
    assert!(asked.lock().unwrap()[4].starts_with("never "), "is tried again all the same");
}

#[tokio::test]
async fn after_a_restart_of_the_node_all_is_told_at_once() {
    let (client, asked) = answers(|_, _| 200).await;
    let of = |boot_id: &str, state| EggAssignmentStatus {
        boot_id: Some(boot_id.into()),
        ..status(&[pod("p", state, "")])
    };
    let known = Some(of("first", PodState::Enforced));
    let (_sender, receiver) = watch::channel(outcome(vec![
        report("same", of("second", PodState::Enforced), known.clone()),
        report("less", of("second", PodState::Pending), known),
    ]));
    tokio::spawn(run(client.clone(), receiver, Notices::new(client, "node1")));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = asked.lock().unwrap().clone();
    assert!(asked.len() == 2 && asked.iter().all(|line| line.contains(r#""bootID":"second""#)), "{asked:?}");
    assert!(asked[0].starts_with("less ") && asked[0].contains("Pending"), "{asked:?}");
}

fn outcome(reports: Vec<Report>) -> Arc<Outcome> {
    let key = |report: &Report| AssignmentKey { namespace: "shop".into(), name: report.uid.clone() };
    let reports = reports.into_iter().map(|report| (key(&report), report));
    Arc::new(Outcome { reports: reports.collect(), ..Outcome::default() })
}

#[tokio::test]
async fn an_api_server_that_has_too_much_to_do_is_left_alone() {
    let (client, _, times) = answers_and_times(|_, _| 429).await;
    let enforced = || status(&[pod("p", PodState::Enforced, "")]);
    let reports = (0..50).map(|number| report(&format!("a{number}"), enforced(), None)).collect();
    let (_sender, receiver) = watch::channel(outcome(reports));
    tokio::spawn(run(client.clone(), receiver, Notices::new(client, "node1")));
    let times = || times.lock().unwrap().clone();
    while times().len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Of 0.5 to 1 s and 1 to 2 s, and longer where the machine stands still.
    let pauses: Vec<_> = times().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] >= Duration::from_millis(500) && pauses[1] >= Duration::from_secs(1), "{pauses:?}");
}

#[tokio::test]
async fn a_restart_takes_nothing_back_and_tells_what_is_new() {
    let (client, asked) = answers(|_, _| 200).await;
    let in_force = status(&[pod("p", PodState::Enforced, "")]);
    let pending = status(&[pod("p", PodState::Pending, "")]);
    let known = |name: &str, now: &EggAssignmentStatus| report(name, now.clone(), Some(in_force.clone()));
    let another = || report("new", in_force.clone(), None);
    let (sender, receiver) = watch::channel(outcome(vec![known("old", &pending), another()]));
    tokio::spawn(run(client.clone(), receiver, Notices::new(client, "node1")));
    let until = async |count: usize| {
        while asked.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until(1).await;
    sender.send_replace(outcome(vec![known("old", &in_force), another()]));
    // It is looked at on its own, if another one comes later, which is written at once.
    tokio::time::sleep(Duration::from_millis(300)).await;
    sender.send_replace(outcome(vec![
        known("old", &in_force),
        another(),
        report("z", in_force.clone(), None),
    ]));
    until(2).await;
    let asked = asked.lock().unwrap().clone();
    let is_of = |name: &str, line: &str| line.starts_with(&format!("{name} "));
    assert!(asked.len() == 2 && is_of("new", &asked[0]) && is_of("z", &asked[1]), "{asked:?}");
}
