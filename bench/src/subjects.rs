//! `bench subjects`: what pods pay that l7egg does not judge as a whole: a container of a divided pod, and pods that no Egg
//! selects on a node with a firewall of its own, or on one whose agent is strict.

use std::sync::Arc;

use anyhow::Result;

use crate::load::DNS;
use crate::pod::{Talker, World};
use crate::protect::{Protection, policy};
use crate::report::Report;
use crate::sample::median;
use crate::traffic::{SERVER, egg, measure, ratio, thousandths};

/// Turns of every variant, and how long each is.
const TURNS: usize = 40;
const MILLISECONDS: u64 = 300;

const METHOD: &str = "As bench traffic: one open connection for each variant and kind, in turns of 0.3 s. `whole` is a pod as in bench traffic, `container` one of a divided pod; no Egg selects `beside_firewall` and `admitted`: the first is on a node \
with a firewall (nodeSelector), the second on one whose agent is strict.";

/// Runs it.
pub fn run() -> Result<Report> {
    let mut report = Report::new("subjects", METHOD);
    let world = World::start()?;
    let names = ["unfiltered", "whole", "container", "beside_firewall", "admitted"];
    let policy = Arc::new(policy(&[egg()?], &[])?);
    let [unfiltered, whole, mut container, beside, admitted] = {
        let pod = |number: u8| world.pod(number, names[usize::from(number)], false);
        [pod(0)?, pod(1)?, pod(2)?, pod(3)?, pod(4)?]
    };
    let cgroup = container.enter("container")?.to_owned();
    let _protections = [
        Protection::of(&whole, &policy)?,
        Protection::of_container(&container, &cgroup, &policy)?,
        Protection::of_node(&beside, &policy)?,
        Protection::of_strict_node(&admitted)?,
    ];
    let pods = [&unfiltered, &whole, &container, &beside, &admitted];
    let mut talkers: Vec<Talker> =
        pods.iter().map(|pod| pod.talker(DNS, SERVER)).collect::<Result<Vec<Talker>>>()?;
    let kinds = ["echo", "stream"];
    for talker in &mut talkers {
        for kind in kinds {
            measure(talker, kind, 100)?;
        }
    }
    let mut rates = vec![vec![Vec::new(); names.len()]; kinds.len()];
    for turn in 0..TURNS {
        // Each begins as often, and each follows each neighbour as often as the other way round.
        for step in 0..names.len() {
            let step = if turn % 2 == 0 { step } else { names.len() - step };
            let index = (turn / 2 + step) % names.len();
            for (kind, rates) in kinds.iter().zip(&mut rates) {
                rates[index].push(measure(&mut talkers[index], kind, MILLISECONDS)?);
            }
        }
        if turn % 10 == 9 {
            eprintln!("bench: subjects: {} of {TURNS} turns", turn + 1);
        }
    }
    for (index, name) in names.into_iter().enumerate() {
        let share = |kind: usize| thousandths(ratio(&rates[kind][index], &rates[kind][0]));
        report.variant(
            name,
            vec![
                ("tcp_rr_per_s", median(&rates[0][index]).round()),
                ("tcp_rr_ratio", share(0)),
                ("gbit_ratio", share(1)),
            ],
        );
    }
    Ok(report)
}
