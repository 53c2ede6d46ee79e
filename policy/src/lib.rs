//! What an l7egg policy means. Pure: no I/O, no clock, no kernel.
//!
//! A policy comes as [`l7egg_crds::PolicySpec`]; [`validate()`] says whether it can be enforced as written. All
//! Eggs that select one pod are merged by [`compile()`] into entries of the kernel's maps, and
//! [`lookup_compiled`] reads them as the kernel does. [`judge`] says what the same Eggs mean without compiling
//! them, and why: it is what the rest is tested against.

mod budget;
mod compile;
mod dns;
mod flow;
mod guard;
mod limit;
mod limits;
mod lookup;
mod name;
mod naming;
mod network;
mod oracle;
mod pattern;
mod ports;
mod problem;
mod reading;
mod rule;
mod sender;
mod source;
mod validate;

pub use compile::{AutomatonError, CompileError, CompiledPolicy, PortPrefix, Searched, compile};
pub use dns::{DnsSettings, MAX_TTL_SETTING, ResolvConf};
pub use flow::Flow;
pub use guard::{Guard, Guarded};
pub use l7egg_ebpf_common::judge::Verdict;
pub use limit::{Limit, MAX_RATE, MIN_RATE, rate};
pub use limits::{
    MAX_CIDRS, MAX_DESTINATION_NAMES, MAX_DESTINATIONS, MAX_EXCEPTS, MAX_NAMES, MAX_PORT_LISTS, MAX_PORTS,
    MAX_RULES, MAX_STATES,
};
pub use lookup::{lookup_compiled, lookup_query};
pub use name::{DomainName, MAX_LABEL, MAX_WIRE, NameError};
pub use naming::name_some;
pub use network::{IPV4_SPACE, Network, NetworkError, to_address, to_number};
pub use oracle::{Judgement, Match, RuleReference, Why, judge, judge_query, judge_sender};
pub use pattern::{
    Glob, LabelPattern, MAX_REGEX, NamePattern, NameRegex, NameSuffix, PatternError, PatternKind, RegexError,
    SuffixError,
};
pub use ports::{PortError, PortRange, PortSet, protocol_number};
pub use problem::Problem;
pub use reading::ReadSpecs;
pub use rule::{Block, Rule};
pub use sender::{MAX_CONTAINER_NAME, Sender, counts_for, is_divided, of_container};
pub use source::Source;
pub use validate::{validate, validate_cluster};

#[cfg(test)]
mod tests;
