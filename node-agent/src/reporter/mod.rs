//! Writes reports to the API server: only what differs from what is there, again and again until it is written,
//! and without anybody waiting for it. One that is refused waits alone; without an API server all do.

mod brake;
mod pace;
mod refused;
mod regress;
mod telling;
#[cfg(test)]
mod tests;
mod written;

use std::{sync::Arc, time::Duration};

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, PatchParams},
};
use l7egg_crds::{EggAssignment, EggAssignmentStatus, PodReport, PodState, status_patch};
use tokio::{sync::watch, time::Instant};

use self::{
    brake::Brake, pace::Pace, refused::Refused, regress::Regressing, telling::Telling, written::Written,
};
use crate::{
    assignment::AssignmentKey,
    causes::causes,
    client::{answered, has_no_time},
    notice::Notices,
    reconcile::Outcome,
};

/// Name under which the agent writes.
pub const FIELD_MANAGER: &str = "l7egg-node-agent";
/// What was written is compared with what the API server has this often: others could have written over it.
const RECHECK_EVERY: Duration = Duration::from_secs(60);

/// Keeps the statuses at the API server as `outcome` says. Ends when the reconciler does.
pub async fn run(client: Client, mut outcome: watch::Receiver<Arc<Outcome>>, mut notices: Notices) {
    let mut written = Written::default();
    let mut refused = Refused::default();
    let mut pace = Pace::default();
    let mut regressing = Regressing::default();
    let mut brake = Brake::default();
    let mut telling = Telling::default();
    let mut recheck = tokio::time::interval_at(Instant::now() + RECHECK_EVERY, RECHECK_EVERY);
    loop {
        let now = Arc::clone(&outcome.borrow_and_update());
        let mut answers = true;
        let due = written.due(&now.reports);
        let is_due = |key: &AssignmentKey| due.iter().any(|(due, _)| *due == key);
        refused.retain(is_due);
        regressing.retain(is_due);
        pace.retain(|key| now.reports.contains_key(key));
        let mut next: Option<Instant> = None;
        for (key, report) in due {
            if !answers {
                break;
            }
            let time = Instant::now();
            let mut wait = |until: Instant| next = Some(next.map_or(until, |next| next.min(until)));
            let before = written.before(key, report);
            let (status, rest) = regressing.soften(key, before, &report.status, time);
            rest.into_iter().for_each(&mut wait);
            if before == Some(&status) {
                continue;
            }
            let generation = status.observed_generation;
            let until = refused.until(key).max(pace.until(key, generation));
            if let Some(until) = until.filter(|until| *until > time) {
                wait(until);
                continue;
            }
            pace.wrote(key, generation, time);
            match answered(patch(&client, key, &report.uid, &status)).await {
                Ok(()) => {
                    if telling.may(time) {
                        let has_time = notices.publish(report, new_failures(before, &status)).await;
                        telling.heard(has_time, Instant::now());
                    }
                    written.note(key, &report.uid, status);
                    refused.accepted(key);
                }
                // Deleted meanwhile, and perhaps made again: the watch will say so.
                Err(error) if is_gone(&error) => {
                    written.note(key, &report.uid, status);
                    refused.accepted(key);
                }
                Err(error) => {
                    answers = !has_no_time(&error);
                    let retry = refused.again(key);
                    wait(Instant::now() + retry);
                    tracing::warn!(assignment = %key, error = causes(&error), ?retry, "status cannot be written, tried again; enforcement does not depend on it");
                }
            }
        }
        written.forget(&now.reports);
        if !answers {
            tokio::time::sleep(brake.pull(brake::random())).await;
            continue;
        }
        brake.release();
        // After the statuses, which nothing else tells.
        if telling.may(Instant::now()) {
            let has_time = notices.tell(&now.notices).await;
            telling.heard(has_time, Instant::now());
        }
        let next = next.into_iter().chain(telling.again()).min();
        tokio::select! {
            changed = outcome.changed() => if changed.is_err() { return },
            _ = recheck.tick() => written.recheck(),
            () = sleep_until(next) => {}
        }
    }
}

/// For ever, if there is nothing to wait for.
async fn sleep_until(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What the API server says of a JSON Patch whose test has failed, in these words alone. What it says of a status that it does not
/// accept has the same code.
const NOT_APPLIED: &str = "the server rejected our request due to an error in our request";

/// Whether there is no object with this name and uid.
fn is_gone(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.code == 404 || status.code == 422 && status.message == NOT_APPLIED
}

async fn patch(
    client: &Client,
    key: &AssignmentKey,
    uid: &str,
    status: &EggAssignmentStatus,
) -> kube::Result<()> {
    // Untyped, because the answer holds the whole object, which may be one that cannot be read.
    let resource = ApiResource::erase::<EggAssignment>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &resource);
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = status_patch(Some(uid), status).map_err(kube::Error::SerdeError)?;
    api.patch_status(&key.name, &parameters, &patch).await.map(drop)
}

/// The pods that failed in a way that they had not before. Another text is the same failure.
#[must_use]
pub fn new_failures<'a>(
    before: Option<&EggAssignmentStatus>,
    now: &'a EggAssignmentStatus,
) -> Vec<&'a PodReport> {
    let is_same = |pod: &PodReport, before: &PodReport| {
        before.uid == pod.uid && before.state == pod.state && before.reason == pod.reason
    };
    let known =
        |pod: &PodReport| before.is_some_and(|before| before.pods.iter().any(|before| is_same(pod, before)));
    now.pods.iter().filter(|pod| pod.state == PodState::Failed && !known(pod)).collect()
}
