//! Probes and metrics for whoever asks: neither silence nor a crowd keeps the next one from an answer, or takes the files that the
//! program needs for its own connections.

mod peer;
mod room;

use std::{sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::time::timeout;

pub use self::peer::Peer;
use self::room::Room;

/// What a listener's connections may take.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Most connections at a time.
    connections: usize,
    /// From the connection to the end of the request's head.
    head: Duration,
    /// From the connection to the end of the answer.
    whole: Duration,
}

const BOUNDS: Bounds =
    Bounds { connections: 64, head: Duration::from_secs(5), whole: Duration::from_secs(30) };

/// Answers until it is dropped, one request a connection.
pub async fn serve<L: Listener<Addr: Peer>>(listener: L, router: Router) {
    serve_within(BOUNDS, listener, router).await;
}

async fn serve_within<L: Listener<Addr: Peer>>(bounds: Bounds, mut listener: L, router: Router) {
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(bounds.head);
    let http = Arc::new(http);
    let service = TowerToHyperService::new(router);
    let mut room = Room::of(bounds.connections);
    loop {
        let (stream, address) = listener.accept().await;
        let answered = http.serve_connection(TokioIo::new(stream), service.clone());
        room.let_in(address.host(), async move {
            match timeout(bounds.whole, answered).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "somebody asked for something else than HTTP, or left")
                }
                Err(_) => tracing::debug!("somebody took too long"),
            }
        });
    }
}

#[cfg(test)]
mod tests;
