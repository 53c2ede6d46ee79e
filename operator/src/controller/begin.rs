//! What is written next, and what has to wait.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use l7egg_crds::EggStatus;

use super::limits::NEAR_SHARES;
use super::{Controller, Done, Progress, limits};
use crate::index::{Assignment, EggKey, ObjectKey};
use crate::pace::Limits;
use crate::queue::{Task, Why};
use crate::write::{Write, write};
use crate::{announce, status};

/// Time that a status waits for the agents' reports where these may make it unnecessary.
const LINGER: Duration = Duration::from_millis(100);

/// How often a part of a shared rate that has time is compared with what it should be.
const LOOKED_AGAIN: Duration = Duration::from_secs(5);

/// Whether these are the limits of [`NEAR_SHARES`].
pub(super) fn is_near(limits: &'static Limits) -> bool {
    std::ptr::eq(limits, &NEAR_SHARES)
}

impl Controller {
    pub(super) fn begin(&mut self, now: Instant) {
        if self.brake.open_at(now).is_some() {
            return;
        }
        while self.brake.has_room(&self.begun, self.concurrent_writes)
            && let Some(task) = self.queue.pop(now)
        {
            match &task {
                Task::Assignment(key) => self.begin_assignment(key, &task, now),
                Task::Status(key) => self.begin_status(key.clone(), now),
            }
        }
    }

    fn begin_assignment(&mut self, key: &ObjectKey, task: &Task, now: Instant) {
        if let Some(due) = self.paces.wait(task, &limits::ASSIGNMENT, now) {
            self.queue.postpone(task, due, Why::Pace);
            return;
        }
        let Some(write) = self.assignment_write(key) else {
            // It is as it is to be; or it is not, as its namespace ends, which an error may say.
            let index = &mut self.index;
            if index.observed(key).is_some() || !index.is_too_late(key) || index.desired(key).is_none() {
                index.set_write_error(key, None);
            }
            self.queue.done(task);
            return;
        };
        let limits = self.limits(&write);
        let mut due = self.paces.wait(task, limits, now);
        if is_near(limits) {
            due = due.max(self.near_paces.wait(task, limits, now));
        }
        if let Some(due) = due {
            // Of news that are not of shares alone it is asked anew. What is nearly the same now may soon be far from it.
            self.queue.postpone(task, due.min(now + LOOKED_AGAIN), Why::HasTime);
            return;
        }
        self.send(task.clone(), write, None, limits, now);
    }

    /// Who shares a rate with a node's pods changes with each pod of other nodes.
    fn limits(&self, write: &Write) -> &'static Limits {
        let Write::Apply(key, desired) = write else { return &limits::ASSIGNMENT };
        match self.observed(key) {
            Some(observed) if !observed.is_but_for_shares(desired) => &limits::ASSIGNMENT,
            Some(observed) if observed.has_nearly_the_shares(desired) => &NEAR_SHARES,
            Some(_) => &limits::SHARES,
            None => &limits::ASSIGNMENT,
        }
    }

    /// Whether somebody took away what is to be there, or put something else in its place.
    pub(super) fn is_to_be_put_back(&self, key: &ObjectKey) -> bool {
        self.index.desired(key).is_some_and(|desired| !self.is_there_but_for_shares(key, &desired))
    }

    fn is_there_but_for_shares(&self, key: &ObjectKey, desired: &Assignment) -> bool {
        self.observed(key).is_some_and(|observed| observed.is_but_for_shares(desired))
    }

    /// What is there of ours.
    fn observed(&self, key: &ObjectKey) -> Option<&Assignment> {
        self.index.observed(key).filter(|observed| observed.labelled)?.assignment.as_ref()
    }

    fn assignment_write(&self, key: &ObjectKey) -> Option<Write> {
        match (self.index.desired(key), self.index.observed(key)) {
            (Some(desired), Some(observed))
                if observed.labelled && observed.assignment.as_ref() == Some(&desired) =>
            {
                None
            }
            (Some(_), None) if self.index.is_too_late(key) => None,
            (Some(desired), _) => Some(Write::Apply(key.clone(), desired)),
            (None, Some(_)) if self.index.may_be_wanted(key) => None,
            (None, Some(observed)) => Some(Write::Delete(key.clone(), observed.uid.clone())),
            (None, None) => None,
        }
    }

    fn begin_status(&mut self, key: EggKey, now: Instant) {
        let task = Task::Status(key.clone());
        // Who edits an Egg wants to know what becomes of that; how often it can be edited has a pace already.
        let generation = self.index.egg(&key).map(|egg| egg.generation);
        let progress = self.eggs.get_mut(&key);
        // One of the same name may have been told of all the time.
        let is_told = progress.as_ref().is_some_and(|progress| progress.is_told);
        let limits = if is_told { &limits::STATUS } else { &limits::FIRST_STATUS };
        if let Some(progress) = progress.filter(|progress| progress.generation != generation) {
            progress.generation = generation;
            self.paces.forget(&task);
        }
        // First of all: what there is to be told can take a look at thousands of nodes.
        if let Some(due) = self.paces.wait(&task, limits, now) {
            // Of another generation it is asked anew.
            self.queue.postpone(&task, due, Why::HasTime);
            return;
        }
        let Some(summary) = self.index.summary(&key) else {
            self.queue.done(&task);
            return;
        };
        let (uid, old) = (summary.egg.uid.clone(), summary.egg.status.clone());
        let new = status::compute(&summary, Timestamp::now());
        let progress = self.eggs.entry(key.clone()).or_insert_with(|| Progress {
            lingers_until: None,
            generation,
            is_told: false,
            announced: announce::is_programmed(&old)
                .then(|| (uid.clone(), old.observed_generation.unwrap_or_default())),
        });
        if new == old {
            progress.lingers_until = None;
            progress.is_told = true;
            self.queue.done(&task);
            return;
        }
        if status::can_wait(&old, &new) {
            let due = *progress.lingers_until.get_or_insert(now + LINGER);
            if due > now {
                self.queue.postpone(&task, due, Why::HasTime);
                return;
            }
        }
        progress.lingers_until = None;
        self.send(task, Write::Status(key, uid, new.clone()), Some((old, new)), limits, now);
    }

    /// `limits`: whose pace it has.
    fn send(
        &mut self,
        task: Task,
        request: Write,
        status: Option<(EggStatus, EggStatus)>,
        limits: &'static Limits,
        begun: Instant,
    ) {
        let client = self.client.clone();
        self.begun.push(begun);
        self.running.spawn(async move {
            let start = Instant::now();
            let result = write(client, request).await;
            Done { task, limits, begun, took: start.elapsed(), result, status }
        });
    }
}
