//! What can become of a connection.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Data went there and came back.
    Ok,
    /// The host was reached, and nobody listens there.
    Refused,
    /// This host refused to send (EPERM, EACCES): what a policy does. Or it took a connection back that had not been made yet
    /// (ECONNABORTED), because the policy that came in force meanwhile does not allow it.
    Denied,
    /// No answer came in time: packets were dropped.
    Timeout,
    /// There is no way to the host.
    Unreachable,
    /// The name has no address of the family.
    DnsFailure,
    /// Anything else.
    Error(String),
}

impl Outcome {
    /// Whether packets went there and back.
    pub fn is_reached(&self) -> bool {
        matches!(self, Outcome::Ok | Outcome::Refused)
    }

    /// Whether a policy may be the reason that they did not. A name that does not resolve is something else.
    pub fn is_blocked(&self) -> bool {
        matches!(self, Outcome::Denied | Outcome::Timeout)
    }
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ConnectionAborted => Outcome::Denied,
            io::ErrorKind::ConnectionRefused => Outcome::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outcome::Timeout,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Outcome::Unreachable,
            _ => Outcome::Error(error.to_string()),
        }
    }
}

impl From<nix::Error> for Outcome {
    fn from(error: nix::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Ok => "reached",
            Outcome::Refused => "refused",
            Outcome::Denied => "denied",
            Outcome::Timeout => "no answer",
            Outcome::Unreachable => "unreachable",
            Outcome::DnsFailure => "no such name",
            Outcome::Error(error) => error,
        })
    }
}
