//! What l7egg costs, beside nothing and beside the usual alternatives, always in one run on one machine.
//!
//! `bench NAME` measures; `load` is the traffic that it measures: servers in one network namespace, clients in
//! others, which are told over their standard input what to do, so that the variants can take turns.

pub mod dns;
pub mod leftovers;
pub mod load;
mod netns;
mod nothing;
pub mod packet;
mod peer;
mod place;
mod pod;
mod protect;
pub mod report;
pub mod sample;
pub mod shaping;
pub mod subjects;
pub mod traffic;
