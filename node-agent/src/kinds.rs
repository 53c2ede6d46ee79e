//! The kinds of objects that the agent watches.

use std::fmt;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// This node's assignments.
    Assignments,
    /// This node's pods.
    Pods,
    /// All Eggs.
    Eggs,
    /// All ClusterEggs.
    ClusterEggs,
    /// All namespaces.
    Namespaces,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] =
        [Kind::Assignments, Kind::Pods, Kind::Eggs, Kind::ClusterEggs, Kind::Namespaces];
}

/// As in the URLs of the API server.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Assignments => "eggassignments",
            Kind::Pods => "pods",
            Kind::Eggs => "eggs",
            Kind::ClusterEggs => "clustereggs",
            Kind::Namespaces => "namespaces",
        })
    }
}
