//! Answers that are not to be believed, sent straight into the programs.

use std::net::IpAddr;

use hickory_proto::op::{MessageType, ResponseCode};
use l7egg_ebpf_common::abi::protocol;
use l7egg_policy::Verdict;

use crate::harness::{Bpffs, RESOLVERS, policy, settings};
use crate::oracle::{Exchange, Packet, Runner};

const NAME: &str = "api.shop.test";
const ADDRESS: &str = "198.18.40.1";

/// The programs, with one allowed name.
fn runner() -> (Runner, Bpffs) {
    let bpffs = Bpffs::new();
    let mut runner = Runner::new(&settings(&bpffs));
    runner.enforce(&policy("{egress: [{to: [{domainNames: [api.shop.test]}]}]}"));
    (runner, bpffs)
}

fn verdict(runner: &mut Runner) -> Verdict {
    let address: IpAddr = ADDRESS.parse().expect("an address");
    runner.send(Packet { protocol: protocol::TCP, address, port: 443 })
}

/// What becomes of the address when the answer of this server is changed like this.
fn after_of(resolver: &str, change: impl FnOnce(&mut Exchange)) -> Verdict {
    let (mut runner, _bpffs) = runner();
    let mut exchange = Exchange::new(NAME, &[ADDRESS.parse().expect("an address")]);
    exchange.resolver = resolver.parse().expect("an address");
    runner.ask(&exchange);
    change(&mut exchange);
    runner.answer(&exchange);
    verdict(&mut runner)
}

#[test]
fn only_the_answer_that_was_asked_for_is_believed() {
    only_that_of(RESOLVERS[0], "198.18.0.54", RESOLVERS[1]);
}

#[test]
fn over_ipv6_too() {
    only_that_of(RESOLVERS[1], "2001:db8:18::54", RESOLVERS[0]);
}

/// `stranger` is no server of the pod's, `other` one that was not asked.
fn only_that_of(resolver: &str, stranger: &str, other: &str) {
    let after = |change: &dyn Fn(&mut Exchange)| after_of(resolver, change);
    let from = |address: &str| {
        let address = address.parse().expect("an address");
        after(&move |exchange| exchange.resolver = address)
    };
    assert_eq!(after(&|_| {}), Verdict::Allow);
    assert_eq!(after(&|exchange| exchange.answer.metadata.id ^= 1), Verdict::Deny, "another ID");
    assert_eq!(after(&|exchange| exchange.rename("other.shop.test")), Verdict::Deny, "another name");
    assert_eq!(after(&|exchange| exchange.local_port += 1), Verdict::Deny, "another port");
    assert_eq!(from(stranger), Verdict::Deny, "another server");
    assert_eq!(from(other), Verdict::Deny, "another of the pod's own servers");
    assert_eq!(after(&|exchange| exchange.remote_port = 5353), Verdict::Deny, "not from port 53");
    assert_eq!(after(&|exchange| exchange.over_loopback = true), Verdict::Deny, "by the pod itself");
    let query = |exchange: &mut Exchange| exchange.answer.metadata.message_type = MessageType::Query;
    assert_eq!(after(&query), Verdict::Deny, "a query with answers");
    let failed = |exchange: &mut Exchange| exchange.answer.metadata.response_code = ResponseCode::NXDomain;
    assert_eq!(after(&failed), Verdict::Deny, "no such name");
    assert_eq!(after(&|exchange| exchange.rename("API.sHOP.test")), Verdict::Allow, "0x20");
}

#[test]
fn a_question_is_answered_once() {
    for resolver in RESOLVERS {
        let (mut runner, _bpffs) = runner();
        let mut exchange = Exchange::new(NAME, &["198.18.40.2".parse().expect("an address")]);
        exchange.resolver = resolver.parse().expect("an address");
        runner.ask(&exchange);
        runner.answer(&exchange);
        exchange.replace_addresses(&[ADDRESS.parse().expect("an address")]);
        for _late in 0..3 {
            runner.answer(&exchange);
            assert_eq!(verdict(&mut runner), Verdict::Deny, "of {resolver}");
        }
    }
}

#[test]
fn a_forged_answer_that_comes_first_takes_nothing_from_the_true_one() {
    for resolver in RESOLVERS {
        let (mut runner, _bpffs) = runner();
        let mut exchange = Exchange::new(NAME, &["198.18.40.2".parse().expect("an address")]);
        exchange.resolver = resolver.parse().expect("an address");
        runner.ask(&exchange);
        exchange.rename("other.shop.test");
        runner.answer(&exchange);
        exchange.answer.metadata.id ^= 1;
        runner.answer(&exchange);
        let mut exchange = Exchange::new(NAME, &[ADDRESS.parse().expect("an address")]);
        exchange.resolver = resolver.parse().expect("an address");
        runner.answer(&exchange);
        assert_eq!(verdict(&mut runner), Verdict::Allow, "of {resolver}");
    }
}

#[test]
fn a_query_that_nobody_answered_hides_no_later_one() {
    for resolver in RESOLVERS {
        let (mut runner, _bpffs) = runner();
        let address: IpAddr = ADDRESS.parse().expect("an address");
        let mut exchange = Exchange::new(NAME, &[address]);
        exchange.resolver = resolver.parse().expect("an address");
        runner.ask(&exchange);
        // With the same port and ID, for a name that only leads to one that a rule matches.
        let mut exchange = Exchange::new("alias.shop.test", &[address]);
        exchange.resolver = resolver.parse().expect("an address");
        runner.ask(&exchange);
        exchange.replace_records(&[NAME.to_owned()], 60, &[address]);
        runner.answer(&exchange);
        assert_eq!(verdict(&mut runner), Verdict::Allow, "of {resolver}");
    }
}

#[test]
fn a_negative_answer_leaves_what_was_learned_alone() {
    let codes =
        [ResponseCode::NXDomain, ResponseCode::NoError, ResponseCode::ServFail, ResponseCode::Refused];
    for (resolver, code) in RESOLVERS.into_iter().flat_map(|resolver| codes.map(|code| (resolver, code))) {
        let (mut runner, _bpffs) = runner();
        let mut exchange = Exchange::new(NAME, &[ADDRESS.parse().expect("an address")]);
        exchange.resolver = resolver.parse().expect("an address");
        runner.ask(&exchange);
        runner.answer(&exchange);
        exchange.set_id(8);
        exchange.answer.metadata.response_code = code;
        exchange.replace_addresses(&[]);
        runner.ask(&exchange);
        assert_eq!(runner.answer(&exchange), Verdict::Allow, "{code} of {resolver} arrives");
        assert_eq!(verdict(&mut runner), Verdict::Allow, "after {code} of {resolver}");
    }
}

#[test]
fn an_answer_cut_anywhere_teaches_no_more_than_what_is_whole() {
    let (mut runner, _bpffs) = runner();
    let exchange = Exchange::new(NAME, &[ADDRESS.parse().expect("an address")]);
    let whole = exchange.answer.to_vec().expect("an answer");
    for len in 0..whole.len() {
        runner.ask(&exchange);
        let arrived = runner.answer_bytes(&exchange, &whole[..len]);
        // Shorter ones are no DNS messages.
        if len >= 12 {
            assert_eq!(arrived, Verdict::Deny, "cut to {len}: the pod must not use what was not learned");
        }
        assert_eq!(verdict(&mut runner), Verdict::Deny, "cut to {len} of {} bytes", whole.len());
    }
}

#[test]
fn answers_with_noise_open_nothing_else() {
    // The address differs from the one in the answer by more than a bit.
    let (mut runner, _bpffs) = runner();
    let exchange = Exchange::new(NAME, &["198.18.40.22".parse().expect("an address")]);
    let whole = exchange.answer.to_vec().expect("an answer");
    for position in 0..whole.len() {
        for bit in 0..8 {
            let mut noisy = whole.clone();
            noisy[position] ^= 1 << bit;
            runner.ask(&exchange);
            runner.answer_bytes(&exchange, &noisy);
            assert_eq!(verdict(&mut runner), Verdict::Deny, "byte {position}, bit {bit}");
        }
    }
}
