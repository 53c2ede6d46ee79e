//! Leader election by a Lease, as client-go does it: the holder renews it; when it has not changed for its
//! duration, measured by the watcher's own clock, another may take it.
//!
//! New pods are held for ten seconds ([`l7egg_crds::HOLD_FOR`]): where a holder ends without giving the lease back, another has to
//! write before these are over. Hence times that are shorter than client-go's.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Name of the Lease.
pub const NAME: &str = "l7egg-operator";
/// Without renewal for this long, another may take the lease.
const DURATION: Duration = Duration::from_secs(6);
/// Without renewal for this long, the holder stops: well before another may begin. Counted from the beginning of the request
/// that renewed it, and another sees that no earlier; so two seconds lie between the two, whatever the API server does.
const DEADLINE: Duration = Duration::from_secs(4);
/// Longest that a renewal may take: two of them fit in, so that an API server that takes not quite so long for each request costs nobody
/// the lease.
const RENEWAL: Duration = Duration::from_secs(2);
/// Between the beginnings of two attempts.
const INTERVAL: Duration = Duration::from_secs(1);

/// Whether an operator leads, and until when it may go by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// It does not.
    None,
    /// It does, until then, unless the lease is renewed.
    Until(Instant),
    /// It does: nobody is elected.
    Endless,
}

impl Term {
    /// Whether it leads now. Who was stopped for a while may ask before the lease is looked at.
    #[must_use]
    pub fn is_on(self) -> bool {
        match self {
            Term::None => false,
            Term::Until(end) => Instant::now() < end,
            Term::Endless => true,
        }
    }
}

/// One that wants the lease.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// The lease as it was last seen to change, and when.
    seen: Option<(LeaseSpec, Instant)>,
    /// The lease as this candidate has it, as long as that counts.
    held: Option<Held>,
    /// Whether the last attempt may have been stored without an answer: then what is `held` may be of an older version.
    is_doubtful: bool,
}

struct Held {
    /// As the API server answered.
    lease: Lease,
    /// When the request began that wrote it.
    since: Instant,
}

impl Candidate {
    /// A candidate of that name, which must be no other's.
    pub fn new(client: Client, namespace: &str, identity: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Candidate { api, identity: identity.to_owned(), seen: None, held: None, is_doubtful: false }
    }

    /// Tries to get the lease and to keep it, and tells `leads` whether it has it. When `shutdown` is
    /// cancelled it gives it back, so that another need not wait.
    pub async fn run(mut self, leads: watch::Sender<Term>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let begun = Instant::now();
            // This process may have been stopped until now.
            self.heed_deadline(begun);
            self.tell(&leads, false);
            // Who takes the lease asks for it first.
            let is_one = self.held.is_some() && !self.is_doubtful;
            let limit = self.at_most(if is_one { RENEWAL } else { 2 * RENEWAL }, begun);
            let attempt = tokio::select! {
                attempt = timeout(limit, self.attempt()) => attempt,
                () = shutdown.cancelled() => break,
            };
            let is_anothers = matches!(attempt, Ok(Ok(None)));
            self.is_doubtful = !matches!(attempt, Ok(Ok(_)));
            match attempt {
                Ok(Ok(held)) => self.held = held,
                Ok(Err(error)) => tracing::debug!(%error, "lease was not renewed"),
                Err(_) => tracing::debug!(?limit, "lease was not renewed: the API server takes too long"),
            }
            let now = Instant::now();
            self.heed_deadline(now);
            self.tell(&leads, is_anothers);
            tokio::select! {
                () = tokio::time::sleep_until(self.next(begun, now)) => {}
                () = shutdown.cancelled() => {}
            }
        }
        if self.held.is_some() && !matches!(timeout(DEADLINE, self.release()).await, Ok(Ok(()))) {
            tracing::debug!("lease was not given back; it runs out in {} s", DURATION.as_secs());
        }
    }

    fn heed_deadline(&mut self, now: Instant) {
        if self.held.as_ref().is_some_and(|held| now - held.since >= DEADLINE) {
            self.held = None;
        }
    }

    /// Tells whether it leads. That it does for longer wakes nobody.
    fn tell(&self, leads: &watch::Sender<Term>, is_anothers: bool) {
        let (identity, now_leads) = (&self.identity, self.held.is_some());
        let term = self.held.as_ref().map_or(Term::None, |held| Term::Until(held.since + DEADLINE));
        leads.send_if_modified(|leads| {
            let before = std::mem::replace(leads, term);
            // Nor is anybody left behind who has seen that a term was over before this could be told.
            let changes = (before != Term::None) != now_leads || now_leads && !before.is_on();
            match (changes, now_leads, is_anothers) {
                (false, ..) => {}
                (_, true, _) => tracing::info!(%identity, "leading"),
                (_, false, true) => tracing::warn!(%identity, "another leads now; standing by"),
                (_, false, false) => tracing::warn!(%identity, "lease could not be renewed; standing by"),
            }
            changes
        });
    }

    /// When the attempt after that one begins: in time for the deadline of one that holds the lease, and for the end of another's.
    fn next(&self, begun: Instant, now: Instant) -> Instant {
        let free = self.seen.as_ref().map(|(seen, since)| *since + others_for(&self.identity, seen));
        let free = free.filter(|free| self.held.is_none() && *free > now);
        let end = self.held.as_ref().map(|held| held.since + DEADLINE);
        [free, end].into_iter().flatten().fold(begun + INTERVAL, Instant::min)
    }

    /// This long, but for one that holds the lease no longer than it may go on without renewal.
    fn at_most(&self, duration: Duration, now: Instant) -> Duration {
        let left = self.held.as_ref().map(|held| (held.since + DEADLINE).saturating_duration_since(now));
        left.map_or(duration, |left| duration.min(left))
    }

    /// The lease, or nothing if it is another's.
    async fn attempt(&mut self) -> Result<Option<Held>, kube::Error> {
        if let Some(held) = self.held.as_ref().filter(|_| !self.is_doubtful) {
            // Usually nobody has touched it since, and one request is enough.
            let renewed = self.write(Some(&held.lease)).await?;
            if renewed.is_some() {
                return Ok(renewed);
            }
        }
        let Some(lease) = self.api.get_opt(NAME).await? else { return self.write(None).await };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        let unchanged_for = self.seen.as_ref().map(|(_, since)| since.elapsed()).unwrap_or_default();
        if unchanged_for < others_for(&self.identity, &spec) {
            return Ok(None);
        }
        self.write(Some(&lease)).await
    }

    /// Writes itself into the lease, with the resource version of what was read: of two that try, one fails. Nothing if another was faster.
    async fn write(&self, lease: Option<&Lease>) -> Result<Option<Held>, kube::Error> {
        let since = Instant::now();
        let held = lease.map(|lease| lease.spec.clone().unwrap_or_default());
        let spec = Some(next(&self.identity, held.as_ref(), MicroTime(Timestamp::now())));
        let written = match lease {
            Some(lease) => {
                let metadata = lease.metadata.clone();
                self.api.replace(NAME, &PostParams::default(), &Lease { metadata, spec }).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                self.api.create(&PostParams::default(), &Lease { metadata, spec }).await
            }
        };
        match written {
            Ok(lease) => Ok(Some(Held { lease, since })),
            // Somebody else has written, made or deleted it.
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let lease = self.api.get(NAME).await?;
        let held = lease.spec.clone().unwrap_or_default();
        if held.holder_identity.as_ref() != Some(&self.identity) {
            return Ok(());
        }
        let spec =
            LeaseSpec { holder_identity: Some(String::new()), lease_duration_seconds: Some(1), ..held };
        self.api.replace(NAME, &PostParams::default(), &Lease { spec: Some(spec), ..lease }).await?;
        tracing::info!(identity = %self.identity, "lease given back");
        Ok(())
    }
}

/// How long the lease is not this candidate's to take, from its last change on.
fn others_for(identity: &str, held: &LeaseSpec) -> Duration {
    let holder = held.holder_identity.as_deref().unwrap_or_default();
    if holder.is_empty() || holder == identity {
        return Duration::ZERO;
    }
    let seconds = held.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs)
}

/// The lease as this candidate holds it.
fn next(identity: &str, held: Option<&LeaseSpec>, now: MicroTime) -> LeaseSpec {
    let mine = held.filter(|held| held.holder_identity.as_deref() == Some(identity));
    let transitions = held.and_then(|held| held.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: mine.and_then(|held| held.acquire_time.clone()).or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(if mine.is_some() { transitions } else { transitions + 1 }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests;
