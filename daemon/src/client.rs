//! A client that notices dead connections: a host that dies hard ends none of its own, so that whoever waits for it would wait for
//! minutes, or for ever.

use std::time::Duration;

use kube::{Client, Config};

/// Silence of a connection after which it is given up. An API server answers within a minute, or says that it cannot, and ends each
/// watch before this: so a connection that is as silent leads nowhere.
pub const SILENT_FOR: Duration = Duration::from_secs(65);
/// A connection is made within this, with TLS.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// A client that gives up a connection that is silent for [`SILENT_FOR`].
///
/// # Errors
/// The configuration names certificates, or a way to log in, that cannot be used.
pub fn connect(config: &Config) -> kube::Result<Client> {
    connect_within(config, SILENT_FOR)
}

/// The same with another silence.
///
/// # Errors
/// As [`connect`].
pub fn connect_within(config: &Config, silent_for: Duration) -> kube::Result<Client> {
    let mut config = config.clone();
    config.connect_timeout = Some(CONNECTED_WITHIN);
    config.write_timeout = Some(CONNECTED_WITHIN);
    config.read_timeout = Some(silent_for);
    // From the request on, not from when the connection was used last.
    config.reset_reader_on_write = true;
    // Its pauses grow to minutes, unseen; whoever asks tries again by itself.
    config.default_retry = false;
    Client::try_from(config)
}
