//! The operator on a real API server, given by KUBECONFIG. The tests make pods on nodes that do not exist,
//! run the operator in-process, and play the node agents.
//!
//! Without an API server they fail, unless L7EGG_SKIP_OK is set: then they say that they were skipped.

mod agent;
mod assignments;
mod cluster_eggs;
mod leader;
mod malformed;
mod rejected;
mod restart;
mod shaping;
mod status;
mod taint;
mod world;
