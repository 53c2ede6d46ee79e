//! Writes reports to the API server: only what differs from what is there, again and again until it is written,
//! and without anybody waiting for it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, PatchParams},
};
use l7egg_crds::{EggAssignment, EggAssignmentStatus, PodReport, PodState, status_patch};
use tokio::sync::watch;

use crate::{assignment::AssignmentKey, causes::causes, notice::Notices, reconcile::Outcome, report::Report};

/// Name under which the agent writes.
pub const FIELD_MANAGER: &str = "l7egg-node-agent";
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// What was written is compared with what the API server has this often: others could have written over it.
const RECHECK_EVERY: Duration = Duration::from_secs(60);

/// Keeps the statuses at the API server as `outcome` says. Ends when the reconciler does.
pub async fn run(client: Client, mut outcome: watch::Receiver<Arc<Outcome>>, mut notices: Notices) {
    let mut written = Written::default();
    let mut retry = RETRY_FIRST;
    let mut recheck = tokio::time::interval(RECHECK_EVERY);
    loop {
        let now = Arc::clone(&outcome.borrow_and_update());
        let mut failed = false;
        notices.tell(&now.notices).await;
        for (key, report) in written.due(&now.reports) {
            match patch(&client, key, &report.status).await {
                Ok(()) => {
                    notices.publish(report, written.before(key, report)).await;
                    written.note(key, report);
                }
                // Deleted meanwhile: the watch will say so.
                Err(kube::Error::Api(status)) if status.code == 404 => written.note(key, report),
                Err(error) => {
                    tracing::warn!(assignment = %key, error = causes(&error), ?retry, "status cannot be written, tried again; enforcement does not depend on it");
                    failed = true;
                    // An object that is refused stops no other; without an API server none can be written.
                    if !matches!(error, kube::Error::Api(_)) {
                        break;
                    }
                }
            }
        }
        written.forget(&now.reports);
        if failed {
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MOST);
            continue;
        }
        retry = RETRY_FIRST;
        tokio::select! {
            changed = outcome.changed() => if changed.is_err() { return },
            _ = recheck.tick() => written.recheck(),
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
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while asked("a") < 2 || asked("never") < 3 {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(asked("z"), 1, "was written at once, and not again");
        assert_eq!(asked("a"), 2, "was written the second time, and not again");
        drop(sender);
    }
}
