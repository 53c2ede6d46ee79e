//! The control loop: news into the index, and what the index then wants written out to the API server. One
//! task owns all state; requests run beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::Event;
use kube::{Client, Resource};
use l7egg_crds::{ClusterEgg, Egg, EggKind, EggStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::announce;
use crate::health::Health;
use crate::index::{EggKey, Index, ObjectKey, Sizes};
use crate::listing::Listings;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::queue::{Queue, Task};
use crate::status;
use crate::watch::{Change, News};
use crate::write::{Write, WriteError, Written, write};

/// Longest pause before a request is tried again that failed because the API server is away or busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The same for one that the API server refused: the object has to change first.
const LONGEST_REFUSED_PAUSE: Duration = Duration::from_secs(300);
/// Most news taken in before what they ask for is begun.
const NEWS_AT_ONCE: usize = 256;
/// Time that requests have to end when the operator is to stop.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// What the control loop is connected to.
pub struct Connections {
    /// What the API server has.
    pub news: mpsc::Receiver<News>,
    /// Whether this operator may write.
    pub leads: watch::Receiver<bool>,
    /// Where events go. One that does not fit is lost: events are hints.
    pub events: mpsc::Sender<(Event, ObjectReference)>,
    /// What the probes ask.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Metrics,
}

/// The control loop's state.
pub struct Controller {
    client: Client,
    connections: Connections,
    concurrent_writes: usize,
    index: Index,
    listings: Listings,
    queue: Queue,
    running: JoinSet<Done>,
    eggs: HashMap<EggKey, Progress>,
    /// All first lists are in.
    settled: bool,
    /// It leads, and knows enough.
    writes: bool,
}

/// What is remembered of one Egg's status.
#[derive(Debug, Default)]
struct Progress {
    pace: Pace,
    /// Uid and generation that were announced as programmed.
    announced: Option<(String, i64)>,
}

struct Done {
    task: Task,
    took: Duration,
    result: Result<Written, WriteError>,
    /// Of a status: what it was before, and what is written.
    status: Option<(EggStatus, EggStatus)>,
}

impl Controller {
    /// A control loop that knows nothing yet.
    pub fn new(client: Client, connections: Connections, concurrent_writes: usize) -> Self {
        Controller {
            client,
            connections,
            concurrent_writes,
            index: Index::default(),
            listings: Listings::default(),
            queue: Queue::default(),
            running: JoinSet::new(),
            eggs: HashMap::new(),
            settled: false,
            writes: false,
        }
    }

    /// Turns until `shutdown` is cancelled, or no more news can come.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut beat = tokio::time::interval(Health::BEAT);
        loop {
            let due = self.queue.next_due();
            tokio::select! {
                news = self.connections.news.recv() => {
                    let Some(news) = news else { break };
                    self.take_in(news);
                    for _ in 0..NEWS_AT_ONCE {
                        let Ok(news) = self.connections.news.try_recv() else { break };
                        self.take_in(news);
                    }
                }
                Some(done) = self.running.join_next(), if !self.running.is_empty() => match done {
                    Ok(done) => self.finish(done),
                    // Better to start anew, which writes nothing in vain, than to go on with a part of the state.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                },
                () = sleep_until(due), if due.is_some() => {}
                Ok(()) = self.connections.leads.changed() => {}
                _ = beat.tick() => self.connections.metrics.sizes(self.index.sizes(), self.queue.len()),
                () = shutdown.cancelled() => break,
            }
            self.turn();
        }
        let last_writes = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WRITES, last_writes).await.is_err() {
            tracing::info!(unfinished = self.running.len(), "requests cut off");
        }
    }

    /// Begins what there is to be done.
    fn turn(&mut self) {
        let waiting_for = self.listings.waiting_for();
        if !self.settled && waiting_for.is_empty() {
            self.settled = true;
            self.index.settle();
            let Sizes { eggs, pods, assignments, .. } = self.index.sizes();
            tracing::info!(eggs, pods, assignments, "all lists are in");
        }
        self.connections.health.beat(waiting_for);
        let writes = self.settled && *self.connections.leads.borrow();
        if self.writes != writes {
            self.set_writes(writes);
        }
        let changes = self.index.take_changes();
        if !writes {
            return;
        }
        for (key, egg) in changes.desired {
            self.queue.push(Task::Assignment(key), egg, true);
        }
        for (key, egg) in changes.observed {
            self.queue.push(Task::Assignment(key), egg, false);
        }
        for egg in changes.status {
            self.queue.push(Task::Status(egg.clone()), Some(egg), false);
        }
        self.begin(Instant::now());
    }

    /// Begins to write, with a look at everything, or stops.
    fn set_writes(&mut self, writes: bool) {
        self.writes = writes;
        self.connections.metrics.leader(writes);
        self.running.abort_all();
        self.running.detach_all();
        self.queue = Queue::default();
        if writes {
            self.index.mark_all();
        }
    }

    fn take_in(&mut self, news: News) {
        let (index, listings) = (&mut self.index, &mut self.listings);
        match news {
            News::Egg(change) => {
                let keys = || index.egg_keys().filter(|key| key.kind == EggKind::Egg).collect();
                let gone = listings.eggs.gone(&change, |egg| egg.key.clone(), keys);
                self.take_in_egg(change, gone);
            }
            News::ClusterEgg(change) => {
                let keys = || index.egg_keys().filter(|key| key.kind == EggKind::ClusterEgg).collect();
                let gone = listings.cluster_eggs.gone(&change, |egg| egg.key.clone(), keys);
                self.take_in_egg(change, gone);
            }
            News::Pod(change) => {
                let gone = listings.pods.gone(&change, |pod| pod.key(), || index.pod_keys().collect());
                gone.iter().for_each(|key| index.remove_pod(key));
                if let Change::Set(pod) = change {
                    index.apply_pod(pod);
                }
            }
            News::Namespace(change) => {
                let names = || index.namespace_names().collect();
                let gone = listings.namespaces.gone(&change, |(name, _)| name.clone(), names);
                gone.iter().for_each(|name| index.remove_namespace(name));
                if let Change::Set((name, labels)) = change {
                    index.apply_namespace(&name, labels);
                }
            }
            News::Assignment(change) => {
                let keys = || index.observed_keys().collect();
                let gone = listings.assignments.gone(&change, |observed| observed.key.clone(), keys);
                gone.iter().for_each(|key| index.remove_observed(key));
                if let Change::Set(observed) = change {
                    index.apply_observed(observed);
                }
            }
        }
    }

    fn take_in_egg(&mut self, change: Change<crate::index::Egg, EggKey>, gone: Vec<EggKey>) {
        for key in gone {
            self.index.remove_egg(&key);
            self.eggs.remove(&key);
        }
        if let Change::Set(egg) = change {
            let key = egg.key.clone();
            let generation = |index: &Index| index.egg(&key).map(|egg| egg.generation);
            let before = generation(&self.index);
            self.index.apply_egg(egg);
            if self.writes && before != generation(&self.index) {
                // A status that was refused before belonged to another generation.
                self.queue.push(Task::Status(key.clone()), Some(key), true);
            }
        }
    }

    fn begin(&mut self, now: Instant) {
        while self.running.len() < self.concurrent_writes
            && let Some(task) = self.queue.pop(now)
        {
            match &task {
                Task::Assignment(key) => match self.assignment_write(key) {
                    Some(write) => self.send(task, write, None),
                    None => self.queue.done(&task),
                },
                Task::Status(key) => self.begin_status(key.clone(), now),
            }
        }
    }

    fn assignment_write(&self, key: &ObjectKey) -> Option<Write> {
        match (self.index.desired(key), self.index.observed(key)) {
            (Some(desired), Some(observed))
                if observed.labelled && observed.assignment.as_ref() == Some(&desired) =>
            {
                None
            }
            (Some(desired), _) => Some(Write::Apply(key.clone(), desired)),
            (None, Some(observed)) => Some(Write::Delete(key.clone(), observed.uid.clone())),
            (None, None) => None,
        }
    }

    fn begin_status(&mut self, key: EggKey, now: Instant) {
        let task = Task::Status(key.clone());
        let Some(summary) = self.index.summary(&key) else {
            self.queue.done(&task);
            return;
        };
        let (uid, old) = (summary.egg.uid.clone(), summary.egg.status.clone());
        let new = status::compute(&summary, Timestamp::now());
        let progress = self.eggs.entry(key.clone()).or_insert_with(|| Progress {
            pace: Pace::default(),
            announced: announce::is_programmed(&old)
                .then(|| (uid.clone(), old.observed_generation.unwrap_or_default())),
        });
        if new == old {
            progress.pace.settled();
            self.queue.done(&task);
            return;
        }
        let mut due = progress.pace.earliest(now);
        if status::can_wait(&old, &new) {
            due = due.max(progress.pace.linger(now));
        }
        if due > now {
            self.queue.postpone(&task, due);
            return;
        }
        progress.pace.wrote(now);
        self.send(task, Write::Status(key, uid, new.clone()), Some((old, new)));
    }

    fn send(&mut self, task: Task, request: Write, status: Option<(EggStatus, EggStatus)>) {
        let client = self.client.clone();
        self.running.spawn(async move {
            let start = Instant::now();
            let result = write(client, request).await;
            Done { task, took: start.elapsed(), result, status }
        });
    }

    fn finish(&mut self, done: Done) {
        let Done { task, took, result, status } = done;
        let what = match &task {
            Task::Assignment(_) => "assignment",
            Task::Status(_) => "status",
        };
        self.connections.metrics.wrote(what, result.is_ok(), took);
        let written = match result {
            Ok(written) => written,
            Err(error) => return self.finish_failed(&task, error, status),
        };
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
                if let Some((old, new)) = status {
                    self.announce(key, uid, &old, &new);
                }
            }
            (Task::Status(_), _) => {}
        }
        self.queue.done(&task);
    }

    fn finish_failed(&mut self, task: &Task, error: WriteError, status: Option<(EggStatus, EggStatus)>) {
        let longest = if error.is_refusal() { LONGEST_REFUSED_PAUSE } else { LONGEST_PAUSE };
        let failures = self.queue.failed(task, Instant::now(), longest);
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
        for event in events {
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

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
