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
/// Without renewal for this long, the holder stops: well before another may begin. Counted from the beginning of the attempt
/// that renewed it, and another sees that no earlier; so three seconds lie between the two, whatever the API server does.
/// An attempt that takes its whole time, a pause and another such attempt fit in, so that a slow API server costs nobody the lease.
const DEADLINE: Duration = Duration::from_secs(12);
/// Longest that one attempt may take, which is two requests.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Pause between two attempts.
const RETRY: Duration = Duration::from_secs(2);

/// One that wants the lease.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// The lease as it was last seen to change, and when.
    seen: Option<(LeaseSpec, Instant)>,
    /// When the attempt began that renewed it last, as long as that counts.
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
            let begun = Instant::now();
            let limit = at_most(ATTEMPT, self.renewed, begun);
            let attempt = tokio::select! {
                attempt = timeout(limit, self.attempt()) => attempt,
                () = shutdown.cancelled() => break,
            };
            let got = match attempt {
                Ok(Ok(got)) => Some(got),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "lease was not renewed");
                    None
                }
                Err(_) => {
                    tracing::debug!(?limit, "lease was not renewed: the API server takes too long");
                    None
                }
            };
            match got {
                Some(true) => self.renewed = Some(begun),
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
                () = tokio::time::sleep(at_most(RETRY, self.renewed, Instant::now())) => {}
                () = shutdown.cancelled() => {}
            }
        }
        if self.renewed.is_some() && !matches!(timeout(ATTEMPT, self.release()).await, Ok(Ok(()))) {
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

/// This long, but for one that holds the lease no longer than it may go on without renewal.
fn at_most(duration: Duration, renewed: Option<Instant>, now: Instant) -> Duration {
    let left = renewed.map(|renewed| (renewed + DEADLINE).saturating_duration_since(now));
    left.map_or(duration, |left| duration.min(left))
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
    use std::convert::Infallible;

    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server that takes a while for each request and has no lease but the one that it is sent.
    fn slow_server(pause: Duration) -> Client {
        let server = tower::service_fn(move |request: http::Request<Body>| async move {
            tokio::time::sleep(pause).await;
            let is_read = request.method() == http::Method::GET;
            let sent = request.into_body().collect_bytes().await.unwrap();
            let (code, answer) = match is_read {
                true => (
                    404,
                    json!({"code": 404, "reason": "NotFound", "message": "no lease"}).to_string().into(),
                ),
                false => (201, sent),
            };
            Ok::<_, Infallible>(http::Response::builder().status(code).body(Body::from(answer)).unwrap())
        });
        Client::new(server, "default")
    }

    #[tokio::test]
    async fn a_slow_api_server_costs_nobody_the_lease() {
        let client = slow_server(Duration::from_millis(1500));
        let (leads, mut led) = watch::channel(false);
        let shutdown = CancellationToken::new();
        let candidate = Candidate::new(client, "default", "first").run(leads, shutdown.clone());
        let task = tokio::spawn(candidate);
        timeout(ATTEMPT, led.wait_for(|leads| *leads)).await.expect("it leads").unwrap();
        shutdown.cancel();
        task.await.unwrap();
    }

    #[test]
    fn the_holder_stops_before_another_may_begin_and_has_time_for_two_slow_attempts() {
        assert!(ATTEMPT + RETRY + ATTEMPT <= DEADLINE);
        assert!(DEADLINE + Duration::from_secs(3) <= DURATION);
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(at_most(ATTEMPT, None, begun), ATTEMPT);
        assert_eq!(at_most(ATTEMPT, Some(begun), after(7)), ATTEMPT);
        assert_eq!(at_most(ATTEMPT, Some(begun), after(9)), Duration::from_secs(3));
        assert_eq!(at_most(RETRY, Some(begun), after(11)), Duration::from_secs(1));
        assert_eq!(at_most(ATTEMPT, Some(begun), after(13)), Duration::ZERO);
    }

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
