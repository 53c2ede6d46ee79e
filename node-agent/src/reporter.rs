//! Writes reports to the API server: only what differs from what is there, again and again until it is written,
//! and without anybody waiting for it. One that is refused waits alone; without an API server all do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, PatchParams},
};
use l7egg_crds::{EggAssignment, EggAssignmentStatus, PodReport, PodState, status_patch};
use tokio::{sync::watch, time::Instant};

use crate::{
    assignment::AssignmentKey, causes::causes, client::answered, notice::Notices, reconcile::Outcome,
    report::Report,
};

/// Name under which the agent writes.
pub const FIELD_MANAGER: &str = "l7egg-node-agent";
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// What was written is compared with what the API server has this often: others could have written over it.
const RECHECK_EVERY: Duration = Duration::from_secs(60);

/// Keeps the statuses at the API server as `outcome` says. Ends when the reconciler does.
pub async fn run(client: Client, mut outcome: watch::Receiver<Arc<Outcome>>, mut notices: Notices) {
    let mut written = Written::default();
    let mut refused = Refused::default();
    let mut retry = RETRY_FIRST;
    let mut recheck = tokio::time::interval_at(Instant::now() + RECHECK_EVERY, RECHECK_EVERY);
    loop {
        let now = Arc::clone(&outcome.borrow_and_update());
        let mut answers = notices.tell(&now.notices).await;
        let mut due = written.due(&now.reports);
        refused.forget(|key| due.iter().all(|(due, _)| *due != key));
        due.retain(|(key, _)| refused.may_try(key));
        for (key, report) in due {
            if !answers {
                break;
            }
            match answered(patch(&client, key, &report.status)).await {
                Ok(()) => {
                    answers = notices.publish(report, written.before(key, report)).await;
                    written.note(key, report);
                    refused.accepted(key);
                }
                // Deleted meanwhile: the watch will say so.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    written.note(key, report);
                    refused.accepted(key);
                }
                Err(error) => {
                    answers = matches!(error, kube::Error::Api(_));
                    let retry = if answers { refused.again(key) } else { retry };
                    tracing::warn!(assignment = %key, error = causes(&error), ?retry, "status cannot be written, tried again; enforcement does not depend on it");
                }
            }
        }
        written.forget(&now.reports);
        if !answers {
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MOST);
            continue;
        }
        retry = RETRY_FIRST;
        tokio::select! {
            changed = outcome.changed() => if changed.is_err() { return },
            _ = recheck.tick() => written.recheck(),
            () = refused.next() => {}
        }
    }
}

async fn patch(client: &Client, key: &AssignmentKey, status: &EggAssignmentStatus) -> kube::Result<()> {
    // Untyped, because the answer holds the whole object, which may be one that cannot be read.
    let resource = ApiResource::erase::<EggAssignment>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &resource);
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = status_patch(None, status).map_err(kube::Error::SerdeError)?;
    api.patch_status(&key.name, &parameters, &patch).await.map(drop)
}

/// What this agent has written, by assignment and its uid.
#[derive(Debug, Default)]
struct Written(BTreeMap<AssignmentKey, (String, EggAssignmentStatus)>);

impl Written {
    /// The reports that the API server does not have.
    fn due<'a>(&self, reports: &'a BTreeMap<AssignmentKey, Report>) -> Vec<(&'a AssignmentKey, &'a Report)> {
        reports.iter().filter(|(key, report)| self.before(key, report) != Some(&report.status)).collect()
    }

    /// What the API server has: what was written last, for it may not have come back yet.
    fn before<'a>(&'a self, key: &AssignmentKey, report: &'a Report) -> Option<&'a EggAssignmentStatus> {
        match self.0.get(key) {
            Some((uid, status)) if *uid == report.uid => Some(status),
            _ => report.known.as_ref(),
        }
    }

    fn note(&mut self, key: &AssignmentKey, report: &Report) {
        self.0.insert(key.clone(), (report.uid.clone(), report.status.clone()));
    }

    fn forget(&mut self, reports: &BTreeMap<AssignmentKey, Report>) {
        self.0.retain(|key, _| reports.contains_key(key));
    }

    fn recheck(&mut self) {
        self.0.clear();
    }
}

/// What the API server refused, with when it is tried again and the pause before that.
#[derive(Debug, Default)]
struct Refused(BTreeMap<AssignmentKey, (Instant, Duration)>);

impl Refused {
    fn may_try(&self, key: &AssignmentKey) -> bool {
        self.0.get(key).is_none_or(|(at, _)| *at <= Instant::now())
    }

    /// The pause until it may be tried again.
    fn again(&mut self, key: &AssignmentKey) -> Duration {
        let pause = self.0.get(key).map_or(RETRY_FIRST, |(_, pause)| (*pause * 2).min(RETRY_MOST));
        self.0.insert(key.clone(), (Instant::now() + pause, pause));
        pause
    }

    fn accepted(&mut self, key: &AssignmentKey) {
        self.0.remove(key);
    }

    fn forget(&mut self, is_over: impl Fn(&AssignmentKey) -> bool) {
        self.0.retain(|key, _| !is_over(key));
    }

    /// Until one may be tried again.
    async fn next(&self) {
        match self.0.values().map(|(at, _)| *at).min() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// The pods that failed in a way that they had not before.
#[must_use]
pub fn new_failures<'a>(
    before: Option<&EggAssignmentStatus>,
    now: &'a EggAssignmentStatus,
) -> Vec<&'a PodReport> {
    let known = |pod: &PodReport| before.is_some_and(|before| before.pods.contains(pod));
    now.pods.iter().filter(|pod| pod.state == PodState::Failed && !known(pod)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::{extract::Path, http::StatusCode};

    use serde_json::json;

    use super::*;

    fn pod(uid: &str, state: PodState, message: &str) -> PodReport {
        PodReport {
            uid: uid.into(),
            state,
            reason: String::new(),
            message: message.into(),
            egress_limit: None,
        }
    }

    fn status(pods: &[PodReport]) -> EggAssignmentStatus {
        EggAssignmentStatus { observed_generation: Some(1), pods: pods.to_vec(), host: None }
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
        written.note(reports.keys().next().unwrap(), reports.values().next().unwrap());
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
            pod("p", PodState::Failed, "x"),
            pod("q", PodState::Failed, "y"),
            pod("r", PodState::Enforced, ""),
        ]);
        let uids = |failures: Vec<&PodReport>| failures.iter().map(|pod| pod.uid.clone()).collect::<Vec<_>>();
        assert_eq!(uids(new_failures(Some(&before), &now)), ["q"]);
        assert_eq!(uids(new_failures(None, &now)), ["p", "q"]);
    }

    /// An API server that refuses the first two statuses it is given, and every one of assignment `never`.
    async fn api_server() -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let status = move |Path(name): Path<String>, body: String| async move {
            let mut log = log.lock().unwrap();
            log.push(format!("{name} {body}"));
            let code = if log.len() <= 2 || name == "never" { 500 } else { 200 };
            let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": code});
            (StatusCode::from_u16(code).unwrap(), answer.to_string())
        };
        let path = "/apis/l7egg.dev/v1alpha1/namespaces/shop/eggassignments/{name}/status";
        let router = axum::Router::new().route(path, axum::routing::patch(status));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        (Client::try_from(config).unwrap(), asked)
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
}
