//! Any bytes as a DNS answer, read as the kernel programs read one. Where hickory-proto reads the same message,
//! the addresses are the same, in the same order, and none is made up.

#![no_main]

use std::net::IpAddr;

use hickory_proto::op::Message as Dns;
use hickory_proto::rr::rdata::svcb::SvcParamValue;
use hickory_proto::rr::{DNSClass, RData, Record};
use l7egg_ebpf_common::abi::Address;
use l7egg_ebpf_common::answer::{ANSWER_STEPS, AnswerWalk, HEADER, Message, Step};
use l7egg_fuzz::read_name;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(message) = Message::new(bytes) else { return };
    let header = message.header();
    if message.len < HEADER || !header.is_usable_answer() {
        return;
    }
    let Some(question) = read_name(&message, HEADER, false) else { return };
    let (found, complete) = walk(&message, question.offset() as u32, header.answers);
    let Ok(dns) = Dns::from_vec(bytes) else { return };
    let meant: Vec<(Address, u32)> = dns.answers.iter().flat_map(addresses_of).collect();
    if complete {
        assert_eq!(found, meant);
    } else {
        assert!(meant.starts_with(&found), "{found:?} is not the beginning of {meant:?}");
    }
});

/// The addresses and whether the walk came to its end. Every name on the way is read as for an alias.
fn walk(message: &Message, behind_qname: u32, answers: u16) -> (Vec<(Address, u32)>, bool) {
    let mut walk = AnswerWalk::default();
    walk.start(behind_qname, answers);
    let mut found = Vec::new();
    for _ in 0..ANSWER_STEPS {
        match walk.step(message) {
            Step::More => {}
            Step::Address => {
                read_name(message, walk.owner(), true);
                found.push((*walk.address(), walk.ttl_s()));
            }
            Step::Alias => {
                read_name(message, walk.target(), true);
            }
            Step::Done => return (found, true),
            Step::Stop => return (found, false),
        }
    }
    (found, false)
}

fn addresses_of(record: &Record) -> Vec<(Address, u32)> {
    if record.dns_class != DNSClass::IN {
        return Vec::new();
    }
    let hints = |params: &[(_, SvcParamValue)]| {
        let hints = params.iter().flat_map(|(_, value)| match value {
            SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|a| IpAddr::V4(a.0)).collect(),
            SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|a| IpAddr::V6(a.0)).collect(),
            _ => Vec::new(),
        });
        hints.collect::<Vec<_>>()
    };
    let addresses = match &record.data {
        RData::SVCB(service) => hints(&service.svc_params),
        RData::HTTPS(service) => hints(&service.0.svc_params),
        data => data.ip_addr().into_iter().collect(),
    };
    // RFC 2181 §8: a TTL with the top bit set is 0.
    let ttl = if record.ttl >> 31 == 1 { 0 } else { record.ttl };
    addresses.into_iter().map(|address| (Address::from(address), ttl)).collect()
}
