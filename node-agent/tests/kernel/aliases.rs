//! Answers to a question that no rule matches, whose aliases lead to a name that one does.

use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record};
use l7egg_ebpf_common::abi::protocol;
use l7egg_policy::Verdict;

use crate::harness::{Bpffs, policy, settings};
use crate::oracle::{Exchange, Packet, Runner};

const POLICY: &str = "{egress: [{to: [{domainNames: [api.shop.test]}], ports: [{port: 443}]}, {to: [{domainNames: [eu.shop.test]}], ports: [{port: 80}]}]}";
const ADDRESS: &str = "198.18.40.1";

/// What becomes of 198.18.40.1 after an answer with these records, each an owner and its alias or address.
fn after(records: &[(&str, &str)], port: u16) -> Verdict {
    let bpffs = Bpffs::new();
    let mut runner = Runner::new(&settings(&bpffs));
    runner.enforce(&policy(POLICY));
    let mut exchange = Exchange::new("api.shop.test.svc.test", &[]);
    for (owner, data) in records {
        let data = match data.parse() {
            Ok(address) => RData::A(A(address)),
            Err(_) => RData::CNAME(CNAME(name(data))),
        };
        exchange.answer.add_answer(Record::from_rdata(name(owner), 300, data));
    }
    runner.ask(&exchange);
    runner.answer(&exchange);
    let address: IpAddr = ADDRESS.parse().expect("an address");
    runner.send(Packet { protocol: protocol::TCP, address, port })
}

fn name(text: &str) -> Name {
    Name::from_str(&format!("{text}.")).expect("a name")
}

const QUESTION: (&str, &str) = ("api.shop.test.svc.test", "api.shop.test");

#[test]
fn addresses_of_the_alias_and_of_its_own_aliases_are_learned() {
    assert_eq!(after(&[QUESTION, ("api.shop.test", ADDRESS)], 443), Verdict::Allow);
    let on =
        [QUESTION, ("api.shop.test", "cdn.test"), ("cdn.test", "Edge.cdn.test"), ("edge.CDN.test", ADDRESS)];
    assert_eq!(after(&on, 443), Verdict::Allow);
}

#[test]
fn other_addresses_in_the_answer_are_not() {
    assert_eq!(after(&[("api.shop.test.svc.test", ADDRESS)], 443), Verdict::Deny, "nothing leads on");
    assert_eq!(after(&[QUESTION, ("www.test", ADDRESS)], 443), Verdict::Deny, "an address of another name");
    assert_eq!(
        after(&[QUESTION, ("api.shop.test.svc.test", ADDRESS)], 443),
        Verdict::Deny,
        "of the question"
    );
    let beside = [QUESTION, ("other.test", "evil.test"), ("evil.test", ADDRESS)];
    assert_eq!(after(&beside, 443), Verdict::Deny, "an alias beside the chain");
    let first = [("other.test", "api.shop.test"), ("api.shop.test", ADDRESS)];
    assert_eq!(after(&first, 443), Verdict::Deny, "an alias of another name");
    let left = [QUESTION, ("api.shop.test", "cdn.test"), ("api.shop.test", ADDRESS)];
    assert_eq!(after(&left, 443), Verdict::Deny, "an address before the end");
}

#[test]
fn the_first_alias_that_a_rule_matches_is_the_name() {
    // As if the pod had asked for it: what comes after it is its own affair.
    let both = [QUESTION, ("api.shop.test", "eu.shop.test"), ("eu.shop.test", ADDRESS)];
    assert_eq!(after(&both, 443), Verdict::Allow);
    assert_eq!(after(&both, 80), Verdict::Deny);
}

#[test]
fn what_a_rule_matches_by_the_time_of_the_answer_is_learned() {
    let bpffs = Bpffs::new();
    let mut runner = Runner::new(&settings(&bpffs));
    let address: IpAddr = ADDRESS.parse().expect("an address");
    let exchange = Exchange::new("late.test", &[address]);
    let to = Packet { protocol: protocol::TCP, address, port: 443 };
    let late = policy("{egress: [{to: [{domainNames: [late.test]}]}]}");
    runner.enforce(&policy(POLICY));
    runner.ask(&exchange);
    runner.enforce(&late);
    runner.answer(&exchange);
    assert_eq!(runner.send(to), Verdict::Allow);
    assert_eq!(runner.answer(&exchange), Verdict::Allow, "the query has its answer");
}
