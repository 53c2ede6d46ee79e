//! Questions to a running agent.

use std::{path::Path, time::Duration};

use anyhow::Context;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

const PATIENCE: Duration = Duration::from_secs(5);
/// For what takes the agent some work. After so long it gives up itself.
const LONG_PATIENCE: Duration = Duration::from_secs(30);

/// GET of one path at an agent's socket: status code and body. Errors say what to do if there is none.
pub(crate) async fn ask(socket: &Path, path: &str) -> anyhow::Result<(u16, String)> {
    ask_within(PATIENCE, socket, path).await
}

/// The same for what takes the agent some work.
pub(crate) async fn ask_patiently(socket: &Path, path: &str) -> anyhow::Result<(u16, String)> {
    ask_within(LONG_PATIENCE, socket, path).await
}

async fn ask_within(patience: Duration, socket: &Path, path: &str) -> anyhow::Result<(u16, String)> {
    let answer = async { get(UnixStream::connect(socket).await?, path).await };
    tokio::time::timeout(patience, answer)
        .await
        .with_context(|| format!("no answer at {} for {} s", socket.display(), patience.as_secs()))?
        .with_context(|| {
            format!(
                "no agent answers at {}: is it running here, is that its --admin-socket, and are you root?",
                socket.display()
            )
        })
}

/// The same over a connection.
pub(crate) async fn get<S>(stream: S, path: &str) -> anyhow::Result<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, "agent").body(Empty::<&[u8]>::new())?;
    let response = sender.send_request(request).await?;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}
