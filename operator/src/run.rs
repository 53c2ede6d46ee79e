//! Everything started, connected, and ended in order.

use std::sync::Arc;

use kube::Client;
use l7egg_daemon::revisions::Revisions;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::controller::{Connections, Controller};
use crate::health::Health;
use crate::lease::{Candidate, Term};
use crate::listing::Listings;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::services::{Ended, Services};
use crate::settings::Settings;
use crate::{http, taint, watch as watches};

/// News that may wait for the control loop.
const WAITING: usize = 1024;

/// Why the operator could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address for metrics and probes.
    #[error("cannot listen on {address} for metrics and probes, choose another --metrics-address: {error}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// A task that should run as long as the operator does.
    #[error("{what} ended, which is a fault of the operator: please report it{}", in_brackets(.panic.as_deref()))]
    Ended {
        /// Which one.
        what: &'static str,
        /// What it said when it panicked.
        panic: Option<String>,
    },
}

fn in_brackets(panic: Option<&str>) -> String {
    panic.map(|panic| format!(" (panic: {panic})")).unwrap_or_default()
}

/// Runs the operator until `shutdown` is cancelled. An API server that is away is waited for.
///
/// # Errors
/// When the address for metrics and probes cannot be used; when a part of the operator ends, so that it would
/// go on with what it last knew of something. It is then to be started again.
pub async fn run(client: Client, settings: Settings, shutdown: CancellationToken) -> Result<(), RunError> {
    let address = settings.metrics_address;
    let listener = http::bind(address).await.map_err(|error| RunError::Listen { address, error })?;
    let metrics = Metrics::default();
    let health = Arc::new(Health::new(Listings::default().waiting_for()));
    let (news_sender, news) = mpsc::channel(WAITING);
    let (leads_sender, leads) =
        watch::channel(if settings.leader_elect { Term::None } else { Term::Endless });

    // Dropped at the end, and with them their tasks.
    let mut services = Services::default();
    let (revisions, annotated) = (Revisions::default(), settings.egress_bandwidth_annotation);
    watches::start(&mut services, &client, &news_sender, &metrics, &revisions, annotated);
    services.spawn("versions of the API server's store", revisions.clone().follow(client.clone()));
    drop(news_sender);
    services.spawn("metrics and probes", http::serve(listener, health.clone(), metrics.clone()));
    if settings.agent_taint {
        let taints = taint::run(
            client.clone(),
            settings.lease_namespace.clone(),
            leads.clone(),
            revisions,
            metrics.clone(),
        );
        services.spawn("taints of nodes", taints);
    }
    let (publisher, events) = Publisher::start(client.clone(), &settings.identity);

    // The lease is given back only when nothing is written any more.
    let written = CancellationToken::new();
    let mut lease = Services::default();
    if settings.leader_elect {
        let candidate = Candidate::new(client.clone(), &settings.lease_namespace, &settings.identity);
        lease.spawn("leader election", candidate.run(leads_sender, written.clone()));
    }

    let connections = Connections { news, leads, events, health, metrics };
    let controller = Controller::new(client, connections, usize::from(settings.concurrent_writes));
    let stop = shutdown.child_token();
    let (result, ()) =
        tokio::join!(watch_over(&mut services, &mut lease, &stop), controller.run(stop.clone()));
    written.cancel();
    lease.finish().await;
    publisher.finish().await;
    tracing::info!("stopped");
    result
}

/// Waits for `stop`, or cancels it when a task ends before.
async fn watch_over(
    services: &mut Services,
    lease: &mut Services,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let Ended { what, panic } = tokio::select! {
        // In this order: who is to stop takes its tasks with it.
        biased;
        () = stop.cancelled() => return Ok(()),
        ended = services.ended() => ended,
        ended = lease.ended() => ended,
    };
    tracing::error!(task = what, panic, "a part of the operator ended: it stops, to be started again");
    stop.cancel();
    Err(RunError::Ended { what, panic })
}

#[cfg(test)]
mod tests;
