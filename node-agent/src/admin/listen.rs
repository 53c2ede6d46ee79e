//! Where the admin endpoint is served.
//!
//! Any process in the node's network can take a TCP port, or ask there. So nothing depends on that one, and what is about users' traffic is
//! only told at the socket.

use std::{
    fs,
    future::ready,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{Router, serve::Listener};
use l7egg_daemon::http::{self, Peer};
use tokio::net::{TcpListener, UnixListener, UnixStream, unix};

const TRY_EVERY: Duration = Duration::from_secs(1);

/// Serves at a TCP address, as soon as it can be had. Nothing that is enforced waits for that.
pub async fn at_address(address: &str, router: Router) {
    serve(|| TcpListener::bind(address), router, |error| {
        tracing::warn!(
            address,
            %error,
            "--admin-address cannot be had, so probes and Prometheus get no answer; tried again every second, and \
             what is enforced does not depend on it"
        );
    })
    .await;
}

/// Serves at a Unix socket, to processes of root and of this process's user alone.
pub async fn at_socket(path: &Path, router: Router) {
    serve(|| ready(Socket::bind(path)), router, |error| {
        tracing::warn!(
            path = %path.display(),
            %error,
            "--admin-socket cannot be had, so `status` and `denied` get no answer; tried again every second"
        );
    })
    .await;
}

/// Tries until it can, and tells once that it could not.
async fn serve<L, F>(bind: impl Fn() -> F, router: Router, tell: impl Fn(io::Error))
where
    L: Listener<Addr: Peer>,
    F: Future<Output = io::Result<L>>,
{
    let mut told = false;
    loop {
        match bind().await {
            Ok(listener) => return http::serve(listener, router).await,
            Err(error) if !std::mem::replace(&mut told, true) => tell(error),
            Err(_) => {}
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// A socket that talks to those who may know everything.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    user: u32,
}

impl Socket {
    fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        Ok(Self { listener, path: path.to_owned(), user: nix::unistd::geteuid().as_raw() })
    }
}

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (UnixStream, unix::SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || peer.uid() == self.user => return (stream, address),
                Ok(peer) => {
                    tracing::debug!(path = %self.path.display(), user = peer.uid(), "somebody else asked")
                }
                Err(error) => tracing::debug!(path = %self.path.display(), %error, "somebody asked"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<unix::SocketAddr> {
        self.listener.local_addr()
    }
}
