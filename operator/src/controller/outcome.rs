//! What became of a request.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use l7egg_crds::{ClusterEgg, Egg, EggKind, EggStatus};

use super::begin::is_near;
use super::{Controller, Done, limits};
use crate::announce;
use crate::index::EggKey;
use crate::queue::{Task, Why};
use crate::write::{WriteError, Written};

/// Longest pause before a request is tried again that failed because the API server is away or busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The same for one that the API server refused: the object has to change first.
const LONGEST_REFUSED_PAUSE: Duration = Duration::from_secs(300);

impl Controller {
    pub(super) fn finish(&mut self, done: Done) {
        let Done { task, limits, begun, took, result, status } = done;
        if let Some(place) = self.begun.iter().position(|other| *other == begun) {
            self.begun.swap_remove(place);
        }
        let now = Instant::now();
        let what = match &task {
            Task::Assignment(_) => "assignment",
            Task::Status(_) => "status",
        };
        self.connections.metrics.wrote(what, result.is_ok(), took);
        self.use_brake(result.as_ref().err(), begun, now);
        let written = match result {
            Ok(written) => written,
            Err(error) => return self.finish_failed(&task, error, status, now),
        };
        if is_near(limits) {
            self.near_paces.done(task.clone(), limits, begun);
            self.paces.done(task.clone(), &limits::SHARES, begun);
        } else {
            self.paces.done(task.clone(), limits, begun);
        }
        match (&task, written) {
            (Task::Assignment(key), Written::Applied(observed)) => {
                tracing::debug!(%key, ?took, "assignment written");
                self.index.assignment_written(*observed);
                self.index.set_write_error(key, None);
            }
            (Task::Assignment(key), _) => {
                tracing::debug!(%key, ?took, "assignment deleted");
                self.index.remove_observed(key);
                self.index.set_write_error(key, None);
            }
            (Task::Status(key), Written::Status(resource_version, stored)) => {
                let uid = self.index.egg(key).map(|egg| egg.uid.clone()).unwrap_or_default();
                self.index.status_written(key, &uid, resource_version, stored);
                self.eggs.get_mut(key).into_iter().for_each(|progress| progress.is_told = true);
                if let Some((old, new)) = status {
                    self.announce(key, uid, &old, &new);
                }
            }
            (Task::Status(_), _) => {}
        }
        self.queue.done(&task);
    }

    /// A request that was begun then ended, with or without an error.
    fn use_brake(&mut self, error: Option<&WriteError>, begun: Instant, now: Instant) {
        match error {
            None => self.brake.accepted(begun),
            Some(error) if error.is_overload() => {
                if self.brake.refused(begun, now, error.retry_after(), jitter()) {
                    tracing::warn!(%error, "the API server has too much to do: writing less");
                }
            }
            // That it could not be asked says nothing.
            Some(WriteError::Request(error)) if !matches!(error, kube::Error::Api(_)) => {}
            Some(_) => self.brake.accepted(begun),
        }
    }

    fn finish_failed(
        &mut self,
        task: &Task,
        error: WriteError,
        status: Option<(EggStatus, EggStatus)>,
        now: Instant,
    ) {
        let (longest, why) = match error.is_refusal() {
            true => (LONGEST_REFUSED_PAUSE, Why::Refused),
            false => (LONGEST_PAUSE, Why::Busy),
        };
        let failures = self.queue.failed(task, now, longest, why);
        // What fails has the queue's pauses; but each pod that comes or goes hastens an assignment that was refused.
        if let (Task::Assignment(_), Why::Refused) = (task, why) {
            self.paces.done(task.clone(), &limits::ASSIGNMENT, now);
        }
        let (what, name) = match task {
            Task::Assignment(key) => ("EggAssignment", key.to_string()),
            Task::Status(key) => ("status", key.to_string()),
        };
        if failures <= 1 {
            tracing::warn!(what, name, %error, "not written, trying again");
        } else {
            tracing::debug!(what, name, %error, failures, "still not written");
        }
        match task {
            Task::Assignment(key) => {
                self.index.set_write_error(key, Some(error.to_string()));
                if let WriteError::StoredOtherwise(observed) = error {
                    self.index.assignment_written(*observed);
                }
            }
            // An object that was stored past its schema takes no status; an event it does take.
            Task::Status(key) if error.is_refusal() && failures == 1 => {
                let uid = self.index.egg(key).map(|egg| egg.uid.clone()).unwrap_or_default();
                if let Some((old, new)) = status {
                    self.announce(key, uid, &old, &new);
                }
            }
            Task::Status(_) => {}
        }
    }

    fn announce(&mut self, key: &EggKey, uid: String, old: &EggStatus, new: &EggStatus) {
        let this = Some((uid, new.observed_generation.unwrap_or_default()));
        let Some(progress) = self.eggs.get_mut(key) else { return };
        let events = announce::events(old, new, progress.announced == this);
        let reference = reference(key, this.as_ref().map(|(uid, _)| uid.clone()));
        if announce::is_programmed(new) {
            progress.announced = this;
        }
        let now = Instant::now();
        for event in events {
            let paced = (key.clone(), event.reason.clone());
            if self.event_paces.wait(&paced, &limits::EVENT, now).is_some() {
                tracing::debug!(egg = %key, reason = event.reason, "not told, as too often of late");
                continue;
            }
            self.event_paces.done(paced, &limits::EVENT, now);
            match event.reason.as_str() {
                "Rejected" | "PodFailed" => {
                    tracing::warn!(egg = %key, "{}: {}", event.reason, event.note.as_deref().unwrap_or_default());
                }
                reason => tracing::info!(egg = %key, generation = new.observed_generation, "{reason}"),
            }
            if self.connections.events.try_send((event, reference.clone())).is_err() {
                tracing::debug!(egg = %key, "too many events, one is lost");
            }
        }
    }
}

/// Any number from 0 to 1: the standard library's way to a random one.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

fn reference(key: &EggKey, uid: Option<String>) -> ObjectReference {
    let (api_version, kind) = match key.kind {
        EggKind::Egg => (Egg::api_version(&()), Egg::kind(&())),
        EggKind::ClusterEgg => (ClusterEgg::api_version(&()), ClusterEgg::kind(&())),
    };
    ObjectReference {
        api_version: Some(api_version.into_owned()),
        kind: Some(kind.into_owned()),
        namespace: key.namespace.clone(),
        name: Some(key.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}
