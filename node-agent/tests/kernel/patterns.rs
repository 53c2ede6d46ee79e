//! An Egg with a thousand patterns of each kind, in the kernel's own tables of patterns and states.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use l7egg_crds::{Destination, EgressRule, PolicySpec};
use l7egg_ebpf_common::abi::Address;
use l7egg_policy::{Source, Verdict, compile};

use crate::harness::{Bpffs, resolv_conf, settings};
use crate::oracle::{Exchange, Runner};

const EACH: usize = 1000;
/// Of each kind, every so manyeth is asked for.
const EVERY: usize = 9;

/// A kind: the nth pattern, a name that it matches, and one that no pattern does.
struct Kind {
    pattern: fn(usize) -> String,
    matches: fn(usize) -> String,
    beside: fn(usize) -> String,
}

/// Five digits without order: what can be counted is the work of a few states.
fn id(n: usize) -> String {
    format!("{:05x}", (n as u32).wrapping_mul(0x9e37_79b1) >> 12)
}

const NAMES: [Kind; 4] = [
    Kind {
        pattern: |n| format!("e{}.exact.test", id(n)),
        matches: |n| format!("e{}.exact.test", id(n)),
        beside: |n| format!("e{}x.exact.test", id(n)),
    },
    Kind {
        pattern: |n| format!("*.s{}.one.test", id(n)),
        matches: |n| format!("a.s{}.one.test", id(n)),
        beside: |n| format!("b.a.s{}.one.test", id(n)),
    },
    Kind {
        pattern: |n| format!("**.d{}.more.test", id(n)),
        matches: |n| format!("b.a.d{}.more.test", id(n)),
        beside: |n| format!("d{}.more.test", id(n)),
    },
    Kind {
        pattern: |n| format!("g*x{}.inner.test", id(n)),
        matches: |n| format!("gabcx{}.inner.test", id(n)),
        beside: |n| format!("habcx{}.inner.test", id(n)),
    },
];
const SUFFIX: Kind = Kind {
    pattern: |n| format!("p{}.part.test", id(n)),
    matches: |n| format!("a.bp{}.part.test", id(n)),
    beside: |n| format!("a.b{}.part.test", id(n)),
};
const REGEX: Kind = Kind {
    pattern: |n| format!("[a-c]{}[.](eu|us)[.]regex[.]test", id(n)),
    matches: |n| format!("b{}.us.regex.test", id(n)),
    beside: |n| format!("b{}.as.regex.test", id(n)),
};

fn egg() -> PolicySpec {
    let all = |kind: &Kind| (0..EACH).map(kind.pattern).collect::<Vec<_>>();
    let mut to: Vec<Destination> =
        NAMES.iter().map(|kind| Destination { domain_names: all(kind), ..Destination::default() }).collect();
    to.push(Destination { domain_suffixes: all(&SUFFIX), ..Destination::default() });
    to.push(Destination { domain_regex: all(&REGEX), ..Destination::default() });
    PolicySpec { egress: vec![EgressRule { to, ..EgressRule::default() }], ..PolicySpec::default() }
}

#[test]
fn a_thousand_of_each_kind_are_matched_and_nothing_beside_them() {
    let spec = egg();
    let begun = Instant::now();
    let source = Source { name: "Egg test/patterns".into(), spec: &spec };
    let policy = compile(&[source], &resolv_conf()).expect("a valid policy");
    let (names, states) = (policy.names.len(), policy.automaton.len());
    println!("{names} names and {states} states, compiled in {} ms", begun.elapsed().as_millis());
    assert!(names >= 3 * EACH && states >= EACH, "less than was written");
    let bpffs = Bpffs::new();
    let mut runner = Runner::new(&settings(&bpffs));
    runner.enforce(&policy);
    let mut learn = |name: &str, number: u32| {
        let address = Ipv4Addr::from(0x0a00_0000 | number);
        let exchange = Exchange::new(name, &[IpAddr::V4(address)]);
        runner.ask(&exchange);
        assert_eq!(runner.answer(&exchange), Verdict::Allow, "the answer for {name} arrives");
        Address::mapped(address.octets())
    };
    let mut meant = BTreeSet::new();
    let mut number = 0;
    for kind in NAMES.iter().chain([&SUFFIX, &REGEX]) {
        for nth in (0..EACH).step_by(EVERY) {
            meant.insert(learn(&(kind.matches)(nth), number));
            learn(&(kind.beside)(nth), number + 1);
            number += 2;
        }
    }
    let known = runner.known();
    assert!(known == meant, "{} known, {} meant", known.len(), meant.len());
    println!("{} names matched, and as many beside them not", meant.len());
}
