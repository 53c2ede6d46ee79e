//! The agent of one node: from the assignments that the operator writes for the node, to what the kernel
//! enforces for each of its pods, and back to a report per pod.
//!
//! ```text
//! API server ─► assignment ─► inventory ─► desired ─┐
//!                              policies ┘           ├─► plan ─► datapath (the kernel) ─► enforced
//! API server ─► selected ─► hold, annotated ────────┤                                       │
//! cgroup tree ─► cgroup ────────────────────────────┘                                       │
//! API server ◄─ reporter ◄─ report ◄────────────────────────────────────────────────────────┘
//! ```
//!
//! [`reconcile`] turns the wheel; everything between its inputs and the datapath is a pure function.

// A closed pipe makes them panic: `l7egg_daemon::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod admin;
pub mod annotated;
pub mod api_servers;
mod ask;
pub mod assignment;
pub mod boot;
mod boot_id;
pub mod causes;
pub mod cgroup;
pub mod client;
pub mod clock;
mod cut;
pub mod datapath;
pub mod desired;
pub mod division;
pub mod engine;
pub mod explain;
pub mod flow_log;
pub mod given;
pub mod guard;
pub mod hold;
pub mod host_file;
pub mod inventory;
pub mod kernel;
pub mod kernel_events;
pub mod kinds;
pub mod limits;
pub mod linger;
mod lock;
pub mod metrics;
pub mod mounts;
mod netlink;
pub mod netns;
pub mod notice;
pub mod plan;
pub mod policies;
pub mod preflight;
pub mod reconcile;
pub mod report;
pub mod reporter;
pub mod resolv_conf;
pub mod resolvers;
pub mod room;
pub mod run;
pub mod selected;
pub mod settings;
pub mod shaping;
pub mod shaping_metrics;
pub mod sockets;
pub mod state;
pub mod status;
pub mod watch;

#[cfg(test)]
mod testing;
