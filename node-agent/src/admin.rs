//! The admin endpoint: `/healthz`, `/readyz`, `/metrics`, and `/state` and `/denied` for people.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

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
}

/// The routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/state", get(state))
        .route("/denied", get(denied))
        .with_state(admin)
}

async fn healthz(State(admin): State<Admin>) -> (StatusCode, String) {
    let since = admin.metrics.since_alive();
    if since < HANGS_AFTER {
        (StatusCode::OK, "ok\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("no pass of the reconciler for {} s\n", since.as_secs()))
    }
}

/// Ready once everything that was known at the start is enforced; a lost API server does not take that back.
async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.outcome.borrow().state.synced {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the API server has not listed this node's assignments yet\n")
    }
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

/// The flows that changed after the number in `?after=`, 0 if there is none.
async fn denied(State(admin): State<Admin>, uri: Uri) -> impl IntoResponse {
    let after = uri.query().and_then(|query| query.strip_prefix("after="));
    let Ok(after) = after.unwrap_or("0").parse() else {
        return (
            StatusCode::BAD_REQUEST,
            [(header::CONTENT_TYPE, "text/plain")],
            "after is a number\n".to_owned(),
        );
    };
    // Explaining reads patterns, thousands of them maybe.
    let flows =
        tokio::task::spawn_blocking(move || serde_json::to_string(&admin.flow_log.since(after))).await;
    json(flows.unwrap_or_else(|_| Ok("[]".to_owned())))
}

fn json(text: serde_json::Result<String>) -> (StatusCode, [(header::HeaderName, &'static str); 1], String) {
    match text {
        Ok(json) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], json + "\n"),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::AgentState;

    async fn get_(port: u16, path: &str) -> (u16, String) {
        crate::status::get(&format!("127.0.0.1:{port}"), path).await.unwrap()
    }

    #[tokio::test]
    async fn serves_what_is_known() {
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let (sender, outcome) = watch::channel(Arc::<Outcome>::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let flow_log = Arc::default();
        let router = router(Admin { registry: Arc::new(registry), metrics, outcome, flow_log });
        tokio::spawn(async move { axum::serve(listener, router).await });

        assert_eq!(get_(port, "/healthz").await.0, 200);
        assert_eq!(get_(port, "/readyz").await.0, 503);
        let state = AgentState { synced: true, ..AgentState::default() };
        sender.send_replace(Arc::new(Outcome { state: state.clone(), ..Outcome::default() }));
        assert_eq!(get_(port, "/readyz").await.0, 200);
        let (code, metrics) = get_(port, "/metrics").await;
        assert_eq!(code, 200);
        assert!(metrics.contains("l7egg_agent_failures_total 0"), "{metrics}");
        let shown: AgentState = serde_json::from_str(&get_(port, "/state").await.1).unwrap();
        assert_eq!(shown, state);
        assert_eq!(get_(port, "/denied?after=3").await, (200, "[]\n".into()));
        assert_eq!(get_(port, "/denied?after=x").await.0, 400);
        assert_eq!(get_(port, "/what").await.0, 404);
    }
}
