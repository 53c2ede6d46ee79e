//! Everything started, connected, and ended in order.

use std::sync::Arc;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::controller::{Connections, Controller};
use crate::health::Health;
use crate::lease::Candidate;
use crate::listing::Listings;
use crate::metrics::Metrics;
use crate::publish::Publisher;
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
}

/// Runs the operator until `shutdown` is cancelled. An API server that is away is waited for.
///
/// # Errors
/// When the address for metrics and probes cannot be used.
pub async fn run(client: Client, settings: Settings, shutdown: CancellationToken) -> Result<(), RunError> {
    let address = settings.metrics_address;
    let listener = http::bind(address).await.map_err(|error| RunError::Listen { address, error })?;
    let metrics = Metrics::default();
    let health = Arc::new(Health::new(Listings::default().waiting_for()));
    let (news_sender, news) = mpsc::channel(WAITING);
    let (leads_sender, leads) = watch::channel(!settings.leader_elect);

    // Dropped at the end, and with them their tasks.
    let mut services = watches::start(&client, &news_sender, &metrics, settings.egress_bandwidth_annotation);
    drop(news_sender);
    services.spawn(http::serve(listener, health.clone(), metrics.clone()));
    if settings.agent_taint {
        services.spawn(taint::run(client.clone(), settings.lease_namespace.clone(), leads.clone()));
    }
    let (publisher, events) = Publisher::start(client.clone(), &settings.identity);

    // The lease is given back only when nothing is written any more.
    let written = CancellationToken::new();
    let lease = settings.leader_elect.then(|| {
        let candidate = Candidate::new(client.clone(), &settings.lease_namespace, &settings.identity);
        tokio::spawn(candidate.run(leads_sender, written.clone()))
    });

    let connections = Connections { news, leads, events, health, metrics };
    Controller::new(client, connections, usize::from(settings.concurrent_writes)).run(shutdown).await;
    written.cancel();
    if let Some(lease) = lease
        && let Err(error) = lease.await
    {
        tracing::error!(%error, "leader election died");
    }
    publisher.finish().await;
    tracing::info!("stopped");
    Ok(())
}
