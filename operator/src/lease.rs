//! Leader election by a Lease, as client-go does it: the holder renews it; when it has not changed for its
//! duration, measured by the watcher's own clock, another may take it.

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
const DURATION: Duration = Duration::from_secs(15);
/// Without renewal for this long, the holder stops: well before another may begin.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two tries.
const RETRY: Duration = Duration::from_secs(2);

/// One that wants the lease.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// The lease as it was last seen to change, and when.
    seen: Option<(LeaseSpec, Instant)>,
    renewed: Option<Instant>,
}

impl Candidate {
    /// A candidate of that name, which must be no other's.
    pub fn new(client: Client, namespace: &str, identity: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Candidate { api, identity: identity.to_owned(), seen: None, renewed: None }
    }

    /// Tries to get the lease and to keep it, and tells `leads` whether it has it. When `shutdown` is
    /// cancelled it gives it back, so that another need not wait.
    pub async fn run(mut self, leads: watch::Sender<bool>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let got = match timeout(RETRY, self.attempt()).await {
                Ok(Ok(got)) => Some(got),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "lease was not renewed");
                    None
                }
                Err(_) => None,
            };
            match got {
                Some(true) => self.renewed = Some(Instant::now()),
                Some(false) => self.renewed = None,
                None => self.renewed = self.renewed.filter(|renewed| renewed.elapsed() < DEADLINE),
            }
            let now_leads = self.renewed.is_some();
            leads.send_if_modified(|leads| {
                if *leads != now_leads {
                    let identity = &self.identity;
                    match (now_leads, got) {
                        (true, _) => tracing::info!(%identity, "leading"),
                        (false, Some(_)) => tracing::warn!(%identity, "another leads now; standing by"),
                        (false, None) => {
                            tracing::warn!(%identity, "lease could not be renewed; standing by");
                        }
                    }
                }
                std::mem::replace(leads, now_leads) != now_leads
            });
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = shutdown.cancelled() => {}
            }
        }
        if self.renewed.is_some() && !matches!(timeout(RETRY, self.release()).await, Ok(Ok(()))) {
            tracing::debug!("lease was not given back; it runs out in {} s", DURATION.as_secs());
        }
    }

    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let spec = next(&self.identity, None, now);
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            return changed(self.api.create(&PostParams::default(), &lease).await);
        };
        let held = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != held) {
            self.seen = Some((held.clone(), Instant::now()));
        }
        let unchanged_for = self.seen.as_ref().map(|(_, since)| since.elapsed()).unwrap_or_default();
        if !may_take(&self.identity, &held, unchanged_for) {
            return Ok(false);
        }
        let spec = next(&self.identity, Some(&held), now);
        // With the resource version of what was read: of two that try, one fails.
        let lease = Lease { spec: Some(spec), ..lease };
        changed(self.api.replace(NAME, &PostParams::default(), &lease).await)
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

/// Whether this candidate may write itself into the lease.
fn may_take(identity: &str, held: &LeaseSpec, unchanged_for: Duration) -> bool {
    let holder = held.holder_identity.as_deref().unwrap_or_default();
    let seconds = held.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let duration = seconds.map_or(DURATION, Duration::from_secs);
    holder.is_empty() || holder == identity || unchanged_for >= duration
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

/// Whether a write came through, or another was faster.
fn changed(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_lease_is_anothers_until_it_runs_out() {
        let held = next("first", None, at(1));
        assert!(may_take("first", &held, Duration::ZERO));
        assert!(!may_take("second", &held, DURATION - Duration::from_millis(1)));
        assert!(may_take("second", &held, DURATION));
        let given_back = LeaseSpec { holder_identity: Some(String::new()), ..held.clone() };
        assert!(may_take("second", &given_back, Duration::ZERO));
        // Another kind of operator may ask for more time.
        let longer = LeaseSpec { lease_duration_seconds: Some(60), ..held };
        assert!(!may_take("second", &longer, DURATION));
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
}
