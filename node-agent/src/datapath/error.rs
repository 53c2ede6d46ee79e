//! Why the kernel does not enforce something, and the words for it in a pod's report.

use std::path::PathBuf;

use l7egg_ebpf_common::share::TIMES_FREE;

/// Reason of a pod whose network is being set up.
pub const NETWORK_NOT_READY: &str = "NetworkNotReady";

/// Reason of a pod whose network is not found, and who has one.
pub const NETWORK_NOT_FOUND: &str = "NetworkNotFound";

/// Reason of a pod whose policy does not fit into a map.
pub const MAP_FULL: &str = "MapFull";

/// Why the kernel does not enforce what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The cgroup vanished before or while the programs were attached: the pod has ended.
    #[error("cgroup {path} of pod {uid} is gone")]
    CgroupGone {
        /// Uid of the pod.
        uid: String,
        /// Directory of its cgroup.
        path: PathBuf,
    },
    /// A map cannot take more.
    #[error("map {map} is full: {advice}")]
    MapFull {
        /// Name of the map.
        map: &'static str,
        /// What the user can do.
        advice: String,
    },
    /// The policies of a namespace have as much of a map as is left to them.
    #[error(
        "namespace {namespace} would have more than {TIMES_FREE} times as many entries of map {map} ({entries}) on this node as would be free for others: let its Eggs have fewer networks, names or ports, or let more of its pods have the same Eggs"
    )]
    ShareReached {
        /// Name of the map.
        map: &'static str,
        /// How many entries it has room for.
        entries: u32,
        /// The namespace.
        namespace: String,
    },
    /// Bandwidth limits cannot be applied to a pod, or not yet.
    #[error("{message}")]
    NotShaped {
        /// One CamelCase word.
        reason: &'static str,
        /// What is in the way, and what the user can do.
        message: String,
    },
    /// Nodes share this machine, and it was not said which cgroup is whose.
    #[error("{message}")]
    SeveralKubelets {
        /// Where their pods are, and what to do.
        message: String,
    },
    /// A system call or a library call on the way to one failed.
    #[error("{what}")]
    Kernel {
        /// What was tried, on which object, and what to do.
        what: String,
        /// What came back.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DatapathError {
    /// One CamelCase word for a pod's report.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            DatapathError::CgroupGone { .. } => "CgroupGone",
            DatapathError::MapFull { .. } => MAP_FULL,
            DatapathError::ShareReached { .. } => "ShareReached",
            DatapathError::NotShaped { reason, .. } => reason,
            DatapathError::SeveralKubelets { .. } => "SeveralKubelets",
            DatapathError::Kernel { .. } => "KernelRefused",
        }
    }

    /// What is for one node would be for all, and for their machine.
    #[must_use]
    pub fn several_kubelets(pods: &[PathBuf]) -> Self {
        let pods: Vec<String> = pods.iter().map(|path| path.display().to_string()).collect();
        DatapathError::SeveralKubelets {
            message: format!(
                "this machine has the pods of several kubelets ({}): say which cgroup is the node's with --host-cgroup",
                pods.join(", ")
            ),
        }
    }

    /// The pod has no network yet: it is being set up.
    #[must_use]
    pub fn network_not_ready(uid: &str) -> Self {
        DatapathError::NotShaped {
            reason: NETWORK_NOT_READY,
            message: format!("the network of pod {uid} is not set up yet; its bandwidth limit follows"),
        }
    }

    /// The kernel lacks what bandwidth limits need.
    #[must_use]
    pub fn no_fq() -> Self {
        DatapathError::NotShaped {
            reason: "NoFq",
            message: "this node's kernel has no fq queueing discipline, so bandwidth limits cannot be applied here: load the module sch_fq, or use a kernel with CONFIG_NET_SCH_FQ".into(),
        }
    }

    /// The pod's interface has a queueing discipline that would be lost.
    #[must_use]
    pub fn interface_in_use(interface: &str, qdisc: &str) -> Self {
        DatapathError::NotShaped {
            reason: "InterfaceInUse",
            message: format!(
                "interface {interface} of the pod has a {qdisc} qdisc with classes of its own, which could not be put back: remove it, or the bandwidth limit"
            ),
        }
    }

    /// Whether it is only a matter of time.
    #[must_use]
    pub fn is_not_yet(&self) -> bool {
        self.reason() == NETWORK_NOT_READY
    }
}
