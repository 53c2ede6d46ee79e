//! The programs against the oracle: generated policies, DNS histories and packets, each run through the real
//! programs and judged by `l7egg_policy::judge` straight from the Eggs.

mod generate;
mod packets;
mod runner;

use l7egg_ebpf_common::abi::{Direction, protocol};
use l7egg_policy::{DomainName, Flow, Source, Verdict, Why, compile, judge, judge_query};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::harness::{Bpffs, fail, resolv_conf, settings};
use generate::{Case, cases};
pub use runner::{Exchange, Runner};

/// Packets judged; `L7EGG_ORACLE_CASES` asks for more.
const PACKETS: usize = 100_000;

#[test]
fn kernel_and_oracle_agree() {
    let wanted = number("L7EGG_ORACLE_CASES").unwrap_or(PACKETS as u64) as usize;
    let seed = number("L7EGG_ORACLE_SEED").unwrap_or_else(|| std::process::id().into());
    println!("oracle: seed {seed}; repeat with L7EGG_ORACLE_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut source = TestRunner::new_with_rng(Config::default(), rng);
    let bpffs = Bpffs::new();
    let mut runner =
        Runner::new(l7egg_node_agent::kernel::Kernel::open(&settings(&bpffs)).unwrap_or_else(fail));
    let (mut judged, mut allowed) = (0, 0);
    while judged < wanted {
        let mut tree = cases().new_tree(&mut source).expect("a case");
        let (count, passed, difference) = check(&mut runner, &tree.current());
        judged += count;
        allowed += passed;
        if difference.is_some() {
            panic!("{}", shrink(&mut runner, &mut tree));
        }
    }
    println!("oracle: {judged} packets and queries judged alike, {allowed} of them allowed");
    assert!(allowed * 10 > judged && allowed * 10 < judged * 9, "too one-sided to say much");
}

/// Packets judged, packets allowed, and the first difference.
fn check(runner: &mut Runner, case: &Case) -> (usize, usize, Option<String>) {
    let sources: Vec<Source<'_>> = case
        .eggs
        .iter()
        .enumerate()
        .map(|(index, spec)| Source { name: format!("Egg test/{index}"), spec })
        .collect();
    let conf = resolv_conf();
    let policy = compile(&sources, &conf).expect("generated policies are valid");
    runner.enforce(&policy);
    for (name, addresses) in &case.history {
        runner.resolve(name, addresses);
    }
    let mut allowed = 0;
    let may_ask = |name: &str| {
        let name = DomainName::parse(name).expect("generated names are valid");
        judge_query(&sources, &conf, Some(&name))
    };
    for name in &case.queries {
        let (meant, happened) = (may_ask(name), runner.query(name));
        if meant != happened {
            let text =
                format!("query for {name}: the oracle says {meant:?}, the kernel {happened:?}\n{case:#?}");
            return (0, 0, Some(text));
        }
        allowed += usize::from(happened == Verdict::Allow);
    }
    for flow in &case.flows {
        let learned: Vec<DomainName> = case
            .history
            .iter()
            .filter(|(name, addresses)| addresses.contains(&flow.address) && may_ask(name) == Verdict::Allow)
            .map(|(name, _)| DomainName::parse(name).expect("generated names are valid"))
            .collect();
        let flow = Flow { direction: Direction::Egress, ..*flow };
        let mut meant = judge(&sources, &conf.servers, &learned, flow);
        if meant.why == Why::OwnResolver && flow.protocol == protocol::UDP {
            // What `send` sends is no query.
            meant.verdict = judge_query(&sources, &conf, None);
        }
        let happened = runner.send(&flow);
        if meant.verdict != happened {
            let text = format!("{flow}: the oracle says {meant}, the kernel {happened:?}\n{case:#?}");
            return (0, 0, Some(text));
        }
        allowed += usize::from(happened == Verdict::Allow);
    }
    (case.queries.len() + case.flows.len(), allowed, None)
}

fn shrink(runner: &mut Runner, tree: &mut impl ValueTree<Value = Case>) -> String {
    let mut worst = String::new();
    for _ in 0..2000 {
        match check(runner, &tree.current()).2 {
            Some(difference) => {
                worst = difference;
                if !tree.simplify() {
                    break;
                }
            }
            None => {
                if !tree.complicate() {
                    break;
                }
            }
        }
    }
    worst
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}
