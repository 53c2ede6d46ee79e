//! The control loop: news into the index, and what the index then wants written out to the API server. One
//! task owns all state; requests run beside it.

mod begin;
mod intake;
mod limits;
mod outcome;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::Event;
use l7egg_crds::EggStatus;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::brake::Brake;
use crate::health::Health;
use crate::index::{EggKey, Index, Sizes};
use crate::lease::Term;
use crate::listing::Listings;
use crate::metrics::Metrics;
use crate::pace::{Limits, Paces, sleep_until};
use crate::queue::{Queue, Task};
use crate::watch::News;
use crate::write::{WriteError, Written};

/// Most news taken in before what they ask for is begun.
const NEWS_AT_ONCE: usize = 256;
/// Time that requests have to end when the operator is to stop.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// What the control loop is connected to.
pub struct Connections {
    /// What the API server has.
    pub news: mpsc::Receiver<News>,
    /// Whether this operator may write.
    pub leads: watch::Receiver<Term>,
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
    /// Of writes.
    paces: Paces<Task>,
    /// Of writes that change a part of a shared rate by next to nothing, which for all others are as any of shares: minutes of theirs
    /// would be no rest for what a pod waits for.
    near_paces: Paces<Task>,
    /// Of events, by their reason.
    event_paces: Paces<(EggKey, String)>,
    brake: Brake,
    running: JoinSet<Done>,
    /// When each of these was begun, in any order.
    begun: Vec<Instant>,
    eggs: HashMap<EggKey, Progress>,
    /// All first lists are in.
    settled: bool,
    /// It leads, and knows enough.
    writes: bool,
}

/// What is remembered of one Egg's status.
#[derive(Debug, Default)]
struct Progress {
    /// There is something to write that may turn out to be unnecessary: when it is written if it does not.
    lingers_until: Option<Instant>,
    /// The generation that its status was last asked for.
    generation: Option<i64>,
    /// It has a status of ours.
    is_told: bool,
    /// Uid and generation that were announced as programmed.
    announced: Option<(String, i64)>,
}

struct Done {
    task: Task,
    /// Whose pace it has.
    limits: &'static Limits,
    begun: Instant,
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
            paces: Paces::default(),
            near_paces: Paces::default(),
            event_paces: Paces::default(),
            brake: Brake::default(),
            running: JoinSet::new(),
            begun: Vec::new(),
            eggs: HashMap::new(),
            settled: false,
            writes: false,
        }
    }

    /// Turns until `shutdown` is cancelled, or no more news can come.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut beat = tokio::time::interval(Health::BEAT);
        let mut now = Instant::now();
        loop {
            // At the time of the turn: what became due since then would be neither begun nor waited for.
            let due = self.next_due(now);
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
                _ = beat.tick() => {
                    self.paces.forget_quiet(now);
                    self.near_paces.forget_quiet(now);
                    self.event_paces.forget_quiet(now);
                    self.connections.metrics.sizes(self.index.sizes(), self.queue.len());
                }
                () = shutdown.cancelled() => break,
            }
            now = Instant::now();
            self.turn(now);
        }
        let last_writes = async {
            while let Some(done) = self.running.join_next().await {
                // What it was is still to be told.
                done.into_iter().for_each(|done| self.finish(done));
            }
        };
        if tokio::time::timeout(LAST_WRITES, last_writes).await.is_err() {
            tracing::info!(unfinished = self.running.len(), "requests cut off");
        }
    }

    /// When there is something to begin, as far as that is a matter of time: of requests that end it is heard anyway.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        if !self.brake.has_room(&self.begun, self.concurrent_writes) {
            return None;
        }
        self.brake.open_at(now).or_else(|| self.queue.next_due())
    }

    /// Begins what there is to be done.
    fn turn(&mut self, now: Instant) {
        let waiting_for = self.listings.waiting_for();
        if !self.settled && waiting_for.is_empty() {
            self.settled = true;
            self.index.settle();
            let Sizes { eggs, pods, assignments, .. } = self.index.sizes();
            let unjudged = self.index.unjudged();
            tracing::info!(eggs, unjudged, pods, assignments, "all lists are in");
        }
        self.connections.health.beat(waiting_for);
        let writes = self.settled && self.connections.leads.borrow().is_on();
        if self.writes != writes {
            self.set_writes(writes);
        }
        let mut changes = self.index.take_changes();
        if !writes {
            return;
        }
        // What is to be another is urgent already, and there are many when it begins to write.
        let desired = &changes.desired;
        changes.altered.retain(|key| !desired.contains_key(key) && self.is_to_be_put_back(key));
        for (key, egg) in changes.desired {
            self.queue.push(Task::Assignment(key), egg, true);
        }
        for (key, egg) in changes.shares.into_iter().chain(changes.observed) {
            let is_urgent = changes.altered.contains(&key);
            self.queue.push(Task::Assignment(key), egg, is_urgent);
        }
        for egg in changes.status {
            self.queue.push(Task::Status(egg.clone()), Some(egg), false);
        }
        self.begin(now);
    }

    /// Begins to write, with a look at everything, or stops.
    fn set_writes(&mut self, writes: bool) {
        self.writes = writes;
        self.connections.metrics.leader(writes);
        self.running.abort_all();
        self.running.detach_all();
        self.begun.clear();
        self.queue = Queue::default();
        if writes {
            self.index.mark_all();
        }
    }
}
