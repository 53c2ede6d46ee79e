//! /metrics, /healthz and /readyz.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::health::Health;
use crate::metrics::Metrics;

/// Media type of the OpenMetrics text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Takes the address, so that a wrong one is known at once. `[::]` is for both families, and for IPv4 alone on a node that has
/// no IPv6.
///
/// # Errors
/// When the address cannot be used.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            // That a port is taken is said of the address that was asked for.
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| error)
        }
        bound => bound,
    }
}

/// Answers until it is dropped. Every pod can reach it, so what connections take is bounded.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Metrics) {
    let alive = health.clone();
    let router = Router::new()
        .route("/healthz", get(move || std::future::ready(answer(alive.alive()))))
        .route("/readyz", get(move || std::future::ready(answer(health.ready()))))
        .route(
            "/metrics",
            get(move || std::future::ready(([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode()))),
        );
    l7egg_daemon::http::serve(listener, router).await;
}

fn answer(state: Result<(), String>) -> (StatusCode, String) {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_default_address_is_reached_by_ipv4() {
        let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(serve(listener, Arc::new(Health::new(vec![])), Metrics::default()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        server.abort();
    }

    #[tokio::test]
    async fn probes_say_what_is_waited_for() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Arc::new(Health::new(vec!["pods", "eggs"]));
        let server = tokio::spawn(serve(listener, health.clone(), Metrics::default()));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("first list of pods, eggs"), "{ready}");
        health.beat(Vec::new());
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains(OPEN_METRICS) && metrics.ends_with("# EOF\n"), "{metrics}");
        server.abort();
    }
    #[tokio::test]
    async fn pods_that_connect_and_say_nothing_take_no_more_than_their_part() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Health::new(vec![])), Metrics::default()));
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let first = timeout(Duration::from_secs(2), silent[0].read(&mut [0])).await;
        assert!(first.is_ok(), "the oldest gives way");
        server.abort();
    }
}
