//! A question and its answer.

use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use l7egg_ebpf_common::abi::DNS_PORT;

use crate::harness::RESOLVERS;

/// A question and its answer.
pub struct Exchange {
    /// The question.
    pub query: Message,
    /// The answer.
    pub answer: Message,
    /// Who is asked, and who answers.
    pub resolver: IpAddr,
    /// The pod's port.
    pub local_port: u16,
    /// The port that the answer comes from.
    pub remote_port: u16,
    /// The answer comes over the loopback interface.
    pub over_loopback: bool,
}

impl Exchange {
    /// Of a name and its addresses.
    pub fn new(name: &str, addresses: &[IpAddr]) -> Self {
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(fully_qualified(name), RecordType::A));
        let mut answer = query.clone();
        answer.metadata.message_type = MessageType::Response;
        let resolver = RESOLVERS[0].parse().expect("an address");
        let mut exchange =
            Self { query, answer, resolver, local_port: 1024, remote_port: DNS_PORT, over_loopback: false };
        exchange.replace_addresses(addresses);
        exchange
    }

    /// Gives the answer other addresses.
    pub fn replace_addresses(&mut self, addresses: &[IpAddr]) {
        self.replace_records(&[], 300, addresses);
    }

    /// Has the answer say that the name is an alias of others, one after the other, and that the last has these addresses.
    pub fn replace_records(&mut self, aliases: &[String], ttl: u32, addresses: &[IpAddr]) {
        let mut owner = self.answer.queries[0].name().clone();
        self.answer.answers.clear();
        for alias in aliases {
            let target = fully_qualified(alias);
            let data = RData::CNAME(CNAME(target.clone()));
            self.answer.add_answer(Record::from_rdata(std::mem::replace(&mut owner, target), ttl, data));
        }
        for address in addresses {
            let data = match address {
                IpAddr::V4(address) => RData::A(A(*address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
            };
            self.answer.add_answer(Record::from_rdata(owner.clone(), ttl, data));
        }
    }

    /// Makes the answer one to the question for another name.
    pub fn rename(&mut self, name: &str) {
        self.answer.queries[0].set_name(fully_qualified(name));
    }

    /// Gives both this ID.
    pub fn set_id(&mut self, id: u16) {
        self.query.metadata.id = id;
        self.answer.metadata.id = id;
    }
}

fn fully_qualified(name: &str) -> Name {
    Name::from_str(&format!("{}.", name.trim_end_matches('.'))).expect("a name")
}
