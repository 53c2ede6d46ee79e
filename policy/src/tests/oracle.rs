//! The compiled form means what the oracle says: generated Eggs and flows, judged by both.

use std::cell::Cell;

use super::generate;
use crate::{Source, Verdict, compile, judge, judge_query, lookup_compiled, lookup_query, validate};
use l7egg_ebpf_common::name;
use proptest::test_runner::{Config, TestRunner};

/// Sets of Eggs; each is asked about [`generate::FLOWS`] flows.
const CASES: u32 = 2_000;

#[test]
fn compiled_lookup_is_what_the_oracle_says() {
    let (allowed, audited, denied) = (Cell::new(0u32), Cell::new(0u32), Cell::new(0u32));
    let (asked, refused) = (Cell::new(0u32), Cell::new(0u32));
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&generate::world(), |world| {
        for spec in &world.specs {
            assert_eq!(validate(spec), [], "the generator makes valid Eggs");
        }
        let sources: Vec<Source> = (0..)
            .zip(&world.specs)
            .map(|(index, spec): (u32, _)| Source { name: format!("Egg test/{index}"), spec })
            .collect();
        let compiled = compile(&sources, &world.resolv_conf).expect("few port lists");
        for (flow, learned) in &world.flows {
            let judgement = judge(&sources, &world.resolv_conf.servers, learned, *flow);
            assert_eq!(
                lookup_compiled(&compiled, learned, *flow),
                judgement.verdict,
                "{flow}, learned by {learned:?}: {}\n{compiled:#?}",
                judgement.why
            );
            let tally = match judgement.verdict {
                Verdict::Allow => &allowed,
                Verdict::Audit => &audited,
                Verdict::Deny => &denied,
            };
            tally.set(tally.get() + 1);
        }
        for (_, learned) in &world.flows {
            for name in learned.iter().flat_map(|name| generate::with_search(name, &world.resolv_conf)) {
                let meant = judge_query(&sources, &world.resolv_conf, Some(&name));
                assert_eq!(lookup_query(&compiled, &name), meant, "query for {name}\n{compiled:#?}");
                let key = [70_001, 90_001];
                let lookup = |is_searched, hash| {
                    let mut names =
                        if is_searched { &compiled.searched.names } else { &compiled.names }.iter();
                    names.find(|(known, _)| name::hash(known.wire(), &key) == hash).map(|(_, masks)| *masks)
                };
                let states = [&*compiled.automaton, &compiled.searched.automaton];
                let may_ask =
                    !compiled.dns.refuse_unmatched || name::may_ask(name.wire(), &key, lookup, states);
                assert_eq!(may_ask, meant == Verdict::Allow, "query for {name}, as the kernel walks it");
                if meant == Verdict::Deny {
                    refused.set(refused.get() + 1);
                } else if compiled.dns.refuse_unmatched {
                    asked.set(asked.get() + 1);
                }
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    println!("{} flows allowed, {} audited, {} denied", allowed.get(), audited.get(), denied.get());
    println!("where names can be refused: {} asked, {} refused", asked.get(), refused.get());
    assert!(asked.get() > 1000 && refused.get() > 1000);
    let flows = CASES * generate::FLOWS as u32;
    assert_eq!(allowed.get() + audited.get() + denied.get(), flows);
    // A generator that only ever hits one verdict would prove nothing.
    assert!([&allowed, &audited, &denied].iter().all(|tally| tally.get() > flows / 20));
}
