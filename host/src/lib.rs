//! Eggs on a Linux host without Kubernetes: from files, for the host itself and for its systemd units.
//!
//! [`files`] has what is written, with the [`fields`] that there are, [`units`] what runs; [`wanted`](mod@wanted) makes of both what
//! the operator would write for a node, by the operator's own index, and the node agent's reconciler takes it from there. [`follow`]
//! turns all this.

// A closed pipe makes them panic: `l7egg_daemon::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod fields;
pub mod files;
pub mod follow;
pub mod run;
pub mod settings;
pub mod units;
pub mod wanted;
