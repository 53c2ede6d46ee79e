//! What can go wrong with a pod's network namespace.

use std::io;
use std::path::PathBuf;

/// Why something in or about a network namespace could not be done.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The namespace of a process cannot be opened.
    #[error(
        "opening {path}: {source}; the agent needs hostPID, SYS_PTRACE and SYS_ADMIN to work in pods' network namespaces"
    )]
    Open {
        /// What was opened.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// A cgroup cannot be read.
    #[error("reading {path}: {source}")]
    Cgroup {
        /// What was read.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// The kernel does not let the agent in.
    #[error("entering network namespace {netns}: {source}; the agent needs SYS_ADMIN")]
    Enter {
        /// Inode number of the namespace.
        netns: u64,
        /// What came back.
        source: io::Error,
    },
    /// The kernel refuses a request.
    #[error("{what}: {source}")]
    Refused {
        /// What was asked, and of which object.
        what: String,
        /// What came back.
        source: io::Error,
    },
}

impl NetnsError {
    /// What the kernel came back with.
    #[must_use]
    pub fn refusal(&self) -> &io::Error {
        let (NetnsError::Open { source, .. }
        | NetnsError::Cgroup { source, .. }
        | NetnsError::Enter { source, .. }
        | NetnsError::Refused { source, .. }) = self;
        source
    }

    /// Whether a capability is missing: trying again does not help.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        self.refusal().kind() == io::ErrorKind::PermissionDenied
    }
}

/// An error of a request, with what was asked.
pub fn refused(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetnsError {
    let what = what.into();
    move |source| NetnsError::Refused { what, source }
}
