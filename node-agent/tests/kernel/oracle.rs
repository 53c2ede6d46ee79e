//! The programs against the oracle: generated policies, DNS histories, packets, queries and calls, each run through the real
//! programs and judged by `l7egg_policy::judge` straight from the Eggs. What once differed is in `oracle/regressions`.

mod calls;
mod case;
mod check;
mod exchange;
mod generate;
mod meaning;
mod packets;
mod regressions;
mod runner;

use l7egg_node_agent::datapath::DatapathSettings;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::harness::{Bpffs, settings};
use case::Case;
pub use case::Packet;
use check::{Callers, Judged, check};
pub use exchange::Exchange;
use generate::cases;
use meaning::NODE_TTL;
pub use runner::Runner;

/// Packets and queries judged; `L7EGG_ORACLE_CASES` asks for more.
const PACKETS: usize = 100_000;
/// Tries to make a case smaller.
const SHRINKS: usize = 2000;

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
    let [min_ttl, max_ttl] = NODE_TTL;
    let mut runner = Runner::new(&DatapathSettings { min_ttl, max_ttl, ..settings(&bpffs) });
    let mut callers = Callers::new();
    for (path, case) in regressions::committed() {
        check(&mut runner, &mut callers, &case)
            .unwrap_or_else(|difference| panic!("{}: {difference}", path.display()));
    }
    let mut judged = Judged::default();
    while judged.of_egress() < wanted {
        let mut tree = cases().new_tree(&mut source).expect("a case");
        match check(&mut runner, &mut callers, &tree.current()) {
            Ok(more) => judged += more,
            Err(first) => {
                let (difference, case) = shrink(&mut runner, &mut callers, &mut tree, first);
                panic!("{difference}\n{case:#?}\n{}", regressions::keep(&case, seed));
            }
        }
    }
    println!("oracle: judged alike under {judged}");
    let (allowed, all) = (judged.allowed, judged.of_egress());
    assert!(allowed * 10 > all && allowed * 10 < all * 9, "too one-sided to say much");
}

/// A smaller case that differs too, and how.
fn shrink(
    runner: &mut Runner,
    callers: &mut Callers,
    tree: &mut impl ValueTree<Value = Case>,
    first: String,
) -> (String, Case) {
    let mut smallest = (first, tree.current());
    let mut goes_on = tree.simplify();
    for _ in 0..SHRINKS {
        if !goes_on {
            break;
        }
        goes_on = match check(runner, callers, &tree.current()) {
            Err(difference) => {
                smallest = (difference, tree.current());
                tree.simplify()
            }
            Ok(_) => tree.complicate(),
        };
    }
    // What a list has at least when it is generated, a case need not have.
    let (queries, flows) = (smallest.1.queries.len(), smallest.1.flows.len());
    for (nth, is_flow) in
        (0..queries).rev().map(|nth| (nth, false)).chain((0..flows).rev().map(|nth| (nth, true)))
    {
        let mut less = smallest.1.clone();
        if is_flow {
            less.flows.remove(nth);
        } else {
            less.queries.remove(nth);
        }
        if let Err(difference) = check(runner, callers, &less) {
            smallest = (difference, less);
        }
    }
    smallest
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}
