//! What an l7egg policy means. Pure: no I/O, no clock, no kernel.
//!
//! A policy comes as [`l7egg_crds::PolicySpec`]; [`validate()`] says whether it can be enforced as written.

mod name;
mod network;
mod pattern;
mod ports;
mod problem;
mod rule;
mod validate;

pub use name::{DomainName, MAX_LABEL, MAX_WIRE, NameError};
pub use network::{IPV4_SPACE, Network, NetworkError, to_address, to_number};
pub use pattern::{NamePattern, PatternError, PatternKind};
pub use ports::{PortError, PortRange, PortSet, protocol_number};
pub use problem::{Problem, ProblemKind};
pub use rule::{Block, Rule};
pub use validate::{
    MAX_CIDRS, MAX_DESTINATIONS, MAX_NAMES, MAX_PORT_LISTS, MAX_PORTS, MAX_RULES, validate, validate_cluster,
};
