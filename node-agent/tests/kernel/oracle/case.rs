//! A case: a pod's Eggs, what it resolved, and what it asks and sends then.

use std::net::IpAddr;

use l7egg_crds::PolicySpec;
use l7egg_ebpf_common::abi::Direction;
use l7egg_policy::Flow;
use serde::{Deserialize, Serialize};

/// Everything that one policy is asked. Kept as a file where the two differ.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// The pod's Eggs.
    pub eggs: Vec<PolicySpec>,
    /// The search domains that the pod itself names.
    #[serde(default)]
    pub own_search: Vec<String>,
    /// What it resolved before.
    pub history: Vec<Answer>,
    /// What it asks for then.
    pub queries: Vec<Query>,
    /// What it sends then.
    pub flows: Vec<Packet>,
}

/// A question, and what came back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The question.
    pub query: Query,
    /// The names that it is an alias of, one after the other.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// How long the addresses may be used, in seconds.
    pub ttl: u32,
    /// The addresses of the last one.
    pub addresses: Vec<IpAddr>,
}

/// A question to one of the servers that the pod's resolver is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Query {
    /// The name that is asked for.
    pub name: String,
    /// The server.
    pub resolver: IpAddr,
}

/// The first packet of a connection or flow.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Packet {
    /// IP protocol number.
    pub protocol: u8,
    /// The other side.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl Packet {
    /// As the oracle has it.
    pub fn flow(self) -> Flow {
        let Self { protocol, address, port } = self;
        Flow { protocol, address, port, direction: Direction::Egress }
    }
}
