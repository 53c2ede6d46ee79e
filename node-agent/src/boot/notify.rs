//! Readiness, as systemd is told of it (`sd_notify(3)`).

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use l7egg_daemon::output;

/// Tells the service manager that the service is ready, if there is one that wants to know.
pub fn ready() {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&socket),
    };
    let sent = address.and_then(|address| {
        let sender = UnixDatagram::unbound()?;
        sender.send_to_addr(b"READY=1", &address)
    });
    if let Err(error) = sent {
        output::eprint(&format!("{} could not be told that this is ready: {error}\n", socket.display()));
    }
}
