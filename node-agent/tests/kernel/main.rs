//! The kernel programs on the running kernel: loaded by the agent's own code, attached to a real cgroup, with
//! real programs that talk to real servers through network namespaces. Needs root.

mod harness;
mod load;
