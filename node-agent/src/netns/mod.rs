//! Pods' network namespaces: finding one, working inside it, its interfaces, and programs on these.
//!
//! ```text
//! cgroup ─► find ─► Netns ─► run: interfaces, tc::attach (the pod's side)
//!                      └───► peers::attach              (the host's side of the same wires)
//! ```
//!
//! Everything here blocks for microseconds to a few milliseconds, and works by interface index in the network
//! namespace of the calling thread. Only [`Netns::run`] changes that, on a thread of its own.

mod addresses;
mod clsact;
mod error;
mod filter_watch;
mod find;
mod interfaces;
mod namespace;
pub mod pacing;
pub mod peers;
mod rtnetlink;
pub mod tc;
mod tcx;

pub use addresses::{addresses, cookie};
pub use error::NetnsError;
pub use filter_watch::FilterWatch;
pub use find::{PodNetwork, Process, SpecNetwork, all_of_processes, find, is_oldest, oldest_process};
pub use interfaces::{Interface, by_who_made_them, interfaces};
pub use namespace::Netns;
