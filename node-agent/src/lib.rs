//! The agent of one node: from the assignments that the operator writes for the node, to what the kernel
//! enforces for each of its pods, and back to a report per pod.

pub mod datapath;
