//! The admin endpoint: `/healthz`, `/readyz` and `/metrics` for whoever asks, `/state` and `/denied` for root.

mod denied;
pub mod listen;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, watch};

use crate::{flow_log::FlowLog, metrics::Metrics, reconcile::Outcome};

/// A reconciler that has not made its round for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// What the endpoint shows.
#[derive(Clone)]
pub struct Admin {
    /// For `/metrics`.
    pub registry: Arc<Registry>,
    /// For `/healthz`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz` and `/state`.
    pub outcome: watch::Receiver<Arc<Outcome>>,
    /// For `/denied`.
    pub flow_log: Arc<FlowLog>,
    /// Whoever explains flows for `/denied` has it.
    pub explaining: Arc<Mutex<()>>,
}

/// Where it is served.
#[derive(Clone, Debug)]
pub struct AdminPlaces {
    /// ADDRESS:PORT, for probes and Prometheus.
    pub address: String,
    /// A path, for people.
    pub socket: PathBuf,
}

/// Serves at both, and waits for either that cannot be had yet.
pub async fn serve(admin: Admin, places: AdminPlaces) {
    let (at_address, at_socket) = (public(admin.clone()), whole(admin));
    tokio::join!(
        listen::at_address(&places.address, at_address),
        listen::at_socket(&places.socket, at_socket)
    );
}

/// What says nothing about whom pods talk to.
pub fn public(admin: Admin) -> Router {
    routes().with_state(admin)
}

/// Everything.
pub fn whole(admin: Admin) -> Router {
    routes().route("/state", get(state)).route("/denied", get(denied::denied)).with_state(admin)
}

fn routes() -> Router<Admin> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

async fn healthz(State(admin): State<Admin>) -> (StatusCode, String) {
    let since = admin.metrics.since_alive();
    if since < HANGS_AFTER {
        (StatusCode::OK, "ok\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("no pass of the reconciler for {} s\n", since.as_secs()))
    }
}

/// Ready once everything that was known at the start is enforced, and it is known which new pods are to be held; a lost API server
/// does not take that back.
async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    let outcome = Arc::clone(&admin.outcome.borrow());
    let awaited = &outcome.state.awaited;
    if outcome.state.synced && awaited.is_empty() {
        return (StatusCode::OK, "ok\n".into());
    }
    let mut text: String = awaited.iter().map(|awaited| format!("waiting for {awaited}\n")).collect();
    if text.is_empty() {
        text = "it has just been started\n".into();
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = String::new();
    let status = match prometheus_client::encoding::text::encode(&mut text, &admin.registry) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

async fn state(State(admin): State<Admin>) -> impl IntoResponse {
    let outcome = Arc::clone(&admin.outcome.borrow());
    json(serde_json::to_string_pretty(&outcome.state))
}

type Answer = (StatusCode, [(header::HeaderName, &'static str); 1], String);

fn json(text: serde_json::Result<String>) -> Answer {
    match text {
        Ok(json) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], json + "\n"),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn plain(status: StatusCode, text: String) -> Answer {
    (status, [(header::CONTENT_TYPE, "text/plain")], text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream, UnixStream},
    };

    use super::*;
    use crate::{ask, state::AgentState};

    /// Asked until there is an answer. While nobody listens, a connection may come to itself, or to another test's server.
    async fn code(port: u16, path: &str) -> u16 {
        let answer = async {
            loop {
                if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await
                    && let Ok((code, _)) = ask::get(stream, path).await
                {
                    return code;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), answer).await.expect("it is served once it can be")
    }

    async fn get_(socket: &Path, path: &str) -> (u16, String) {
        ask::ask(socket, path).await.unwrap()
    }

    fn admin() -> (watch::Sender<Arc<Outcome>>, Admin) {
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let (sender, outcome) = watch::channel(Arc::<Outcome>::default());
        (
            sender,
            Admin {
                registry: Arc::new(registry),
                metrics,
                outcome,
                flow_log: Arc::default(),
                explaining: Arc::default(),
            },
        )
    }

    async fn wait_for(socket: &Path) {
        while !socket.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn serves_what_is_known() {
        let (sender, admin) = admin();
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("run/agent.sock");
        let path = socket.clone();
        tokio::spawn(async move { listen::at_socket(&path, whole(admin)).await });
        wait_for(&socket).await;

        assert_eq!(get_(&socket, "/healthz").await.0, 200);
        assert_eq!(get_(&socket, "/readyz").await.0, 503);
        let awaited = vec!["the API server's list of pods: forbidden".into()];
        let state = AgentState { synced: true, awaited, ..AgentState::default() };
        sender.send_replace(Arc::new(Outcome { state, ..Outcome::default() }));
        let unready = (503, "waiting for the API server's list of pods: forbidden\n".into());
        assert_eq!(get_(&socket, "/readyz").await, unready);
        let state = AgentState { synced: true, ..AgentState::default() };
        sender.send_replace(Arc::new(Outcome { state: state.clone(), ..Outcome::default() }));
        assert_eq!(get_(&socket, "/readyz").await.0, 200);
        let (code, metrics) = get_(&socket, "/metrics").await;
        assert_eq!(code, 200);
        assert!(metrics.contains("l7egg_agent_failures_total 0"), "{metrics}");
        let shown: AgentState = serde_json::from_str(&get_(&socket, "/state").await.1).unwrap();
        assert_eq!(shown, state);
        for query in ["", "?after=3", "?after=3&pod=node+node1"] {
            assert_eq!(get_(&socket, &format!("/denied{query}")).await, (200, "[]\n".into()));
        }
        assert_eq!(get_(&socket, "/denied?after=x").await.0, 400);
        assert_eq!(get_(&socket, "/what").await.0, 404);
    }

    #[tokio::test]
    async fn the_nodes_network_is_told_nothing_about_traffic_and_keeps_nobody_from_starting() {
        let (_sender, admin) = admin();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        tokio::spawn(async move { listen::at_address(&format!("127.0.0.1:{port}"), public(admin)).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(taken);
        assert_eq!(code(port, "/healthz").await, 200);
        assert_eq!((code(port, "/state").await, code(port, "/denied").await), (404, 404));
    }

    #[tokio::test]
    async fn what_another_agent_left_at_the_path_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let (_sender, admin) = admin();
        let path = socket.clone();
        tokio::spawn(async move { listen::at_socket(&path, whole(admin)).await });
        let up = async {
            while ask::ask(&socket, "/healthz").await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), up).await.expect("it is served");
    }
    #[tokio::test]
    async fn who_connects_and_says_nothing_takes_no_more_than_a_part() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let (_sender, admin) = admin();
        let path = socket.clone();
        tokio::spawn(async move { listen::at_socket(&path, whole(admin)).await });
        wait_for(&socket).await;
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(UnixStream::connect(&socket).await.unwrap());
        }
        assert_eq!(get_(&socket, "/healthz").await.0, 200);
        let first = tokio::time::timeout(Duration::from_secs(2), silent[0].read(&mut [0])).await;
        assert!(first.is_ok(), "the oldest gives way");
    }
}
