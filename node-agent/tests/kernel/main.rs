//! The kernel programs on the running kernel: loaded by the agent's own code, attached to a real cgroup, with
//! real programs that talk to real servers through network namespaces. Needs root, and the binaries of the
//! e2e crate (`cargo xtask test kernel` sees to both).

mod aliases;
mod answers;
mod audit;
mod backstop;
mod boot;
mod both_ends;
mod containers;
mod conversations;
mod datagrams;
mod destinations;
mod detached;
mod end;
mod far_end;
mod filters;
mod flows_held;
mod forged;
mod forged_tcp;
mod gate;
mod goodbye;
#[allow(dead_code)] // The other suites use all of it.
mod harness;
mod held;
mod host;
mod host_network;
mod inbound;
mod layout;
mod letting_go;
mod limits;
mod load;
mod names;
mod names_tcp;
mod netns;
mod node;
mod note;
mod on_top;
mod oracle;
mod path_mtu;
mod patterns;
mod pipelined;
mod raw;
mod refusals;
mod resets;
mod sandbox;
mod sandboxed;
mod sctp;
mod shaping;
mod shaping_nodes;
mod socket_balancer;
mod survival;
mod ttl;
mod unshaped;
mod unusual;
