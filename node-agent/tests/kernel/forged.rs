//! Answers that are not to be believed, sent straight into the programs.

use std::net::IpAddr;

use l7egg_ebpf_common::abi::protocol;
use l7egg_policy::Verdict;

use crate::harness::{Bpffs, policy, settings};
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

/// What becomes of the address when the answer is changed like this.
fn after(change: impl FnOnce(&mut Exchange)) -> Verdict {
    let (mut runner, _bpffs) = runner();
    let mut exchange = Exchange::new(NAME, &[ADDRESS.parse().expect("an address")]);
    runner.ask(&exchange);
    change(&mut exchange);
    runner.answer(&exchange);
    verdict(&mut runner)
}

#[test]
fn only_the_answer_that_was_asked_for_is_believed() {
    assert_eq!(after(|_| {}), Verdict::Allow);
    assert_eq!(after(|exchange| exchange.answer.metadata.id ^= 1), Verdict::Deny, "another ID");
    assert_eq!(after(|exchange| exchange.rename("other.shop.test")), Verdict::Deny, "another name");
    assert_eq!(after(|exchange| exchange.local_port += 1), Verdict::Deny, "another port");
    let stranger = |exchange: &mut Exchange| exchange.resolver = "198.18.0.54".parse().expect("an address");
    assert_eq!(after(stranger), Verdict::Deny, "another server");
    let other_family =
        |exchange: &mut Exchange| exchange.resolver = "2001:db8:18::53".parse().expect("an address");
    assert_eq!(after(other_family), Verdict::Deny, "another of the pod's own servers");
    assert_eq!(after(|exchange| exchange.remote_port = 5353), Verdict::Deny, "not from port 53");
    assert_eq!(after(|exchange| exchange.over_loopback = true), Verdict::Deny, "by the pod itself");
    let query = |exchange: &mut Exchange| {
        exchange.answer.metadata.message_type = hickory_proto::op::MessageType::Query;
    };
    assert_eq!(after(query), Verdict::Deny, "a query with answers");
    let failed = |exchange: &mut Exchange| {
        exchange.answer.metadata.response_code = hickory_proto::op::ResponseCode::NXDomain;
    };
    assert_eq!(after(failed), Verdict::Deny, "no such name");
    assert_eq!(after(|exchange| exchange.rename("API.sHOP.test")), Verdict::Allow, "0x20");
}

#[test]
fn a_question_is_answered_once() {
    let (mut runner, _bpffs) = runner();
    let mut exchange = Exchange::new(NAME, &["198.18.40.2".parse().expect("an address")]);
    runner.ask(&exchange);
    runner.answer(&exchange);
    exchange.replace_addresses(&[ADDRESS.parse().expect("an address")]);
    runner.answer(&exchange);
    assert_eq!(verdict(&mut runner), Verdict::Deny);
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
