//! The conformance table: every behaviour of DNS that names rest on, with the clients that people run and the
//! resolvers that clusters run, on the running kernel. The client asks inside a pod whose cgroup has the
//! programs; then it connects at once to what it was told, and the first SYN must pass, or be refused.
//! `cargo xtask test conformance` installs what it needs; `L7EGG_CONFORMANCE=PART` takes only the behaviours
//! with this in their name.

mod behaviours;
mod block;
mod cell;
mod client;
mod environment;
#[path = "../kernel/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the kernel tests need more of it")]
mod harness;
mod programs;
mod progress;
mod resolver;
mod table;

use behaviours::{Behaviour, SEARCH};
use block::Block;
use cell::{Cell, Verdict};
use client::Client;
use environment::Environment;
use programs::Programs;
use progress::Progress;
use resolver::Resolver;
use table::Table;

#[test]
fn every_cell_passes_or_says_why_it_cannot() {
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(missing) => return println!("skipped: {missing}"),
    };
    let wanted = std::env::var("L7EGG_CONFORMANCE").unwrap_or_default();
    let behaviours: Vec<Behaviour> =
        behaviours::all().into_iter().filter(|behaviour| behaviour.name.contains(&wanted)).collect();
    let progress = Progress::new(behaviours.len() * Client::ALL.len() * Resolver::ALL.len());
    let columns = std::thread::scope(|scope| {
        let threads = Resolver::ALL.map(|resolver| {
            let (programs, behaviours, progress) = (&programs, &behaviours, &progress);
            scope.spawn(move || (resolver, run(programs, resolver, behaviours, progress)))
        });
        threads.map(|thread| thread.join().expect("a resolver's cells"))
    });
    let table = Table::new(&behaviours, columns);
    println!("{table}");
    table.write();
    assert!(table.failures().is_empty(), "{} cells failed, see the table", table.failures().len());
}

/// All cells of one resolver: for each behaviour one of every client.
fn run(
    programs: &Programs,
    resolver: Resolver,
    behaviours: &[Behaviour],
    progress: &Progress,
) -> Vec<Vec<Verdict>> {
    let block = |row: usize, column: usize| Block::new(row * Client::ALL.len() + column);
    let blocks = |row| (0..Client::ALL.len()).map(move |column| block(row, column));
    let records: Vec<String> = behaviours
        .iter()
        .enumerate()
        .flat_map(|(row, behaviour)| blocks(row).flat_map(|block| block.lines(behaviour.records)))
        .collect();
    let mut environment = Environment::new(programs, resolver, &records);
    let rows = behaviours.iter().enumerate().map(|(row, behaviour)| {
        let cells = Client::ALL.into_iter().zip(blocks(row)).map(|(client, block)| {
            environment.enforce(&block.fill(behaviour.policy), &block.fill(SEARCH));
            progress.cell();
            (behaviour.check)(&Cell { environment: &environment, client, block })
        });
        cells.collect()
    });
    rows.collect()
}
