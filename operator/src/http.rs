//! /metrics, /healthz and /readyz.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::health::Health;
use crate::metrics::Metrics;

/// Media type of the OpenMetrics text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Takes the address, so that a wrong one is known at once.
///
/// # Errors
/// When the address cannot be used.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Metrics) {
    let alive = health.clone();
    let router = Router::new()
        .route("/healthz", get(move || std::future::ready(answer(alive.alive()))))
        .route("/readyz", get(move || std::future::ready(answer(health.ready()))))
        .route(
            "/metrics",
            get(move || std::future::ready(([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode()))),
        );
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "metrics and probes are not served any more");
    }
}

fn answer(state: Result<(), String>) -> (StatusCode, String) {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}
