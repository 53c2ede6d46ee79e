//! The kernel tier: the node agent's kernel tests on this machine's kernel and in VMs on Debian's.

use std::num::NonZero;
use std::thread;

use anyhow::anyhow;

use super::binaries::{self, TestBinary};
use super::report::{Report, Row};
use super::runner::{self, Show};
use crate::{process, vm};

/// Tried and reported; they do not decide the result.
const TRIED: [&str; 3] = ["5.10", "6.18", "7.x"];
/// Seconds for the tests on this machine, and in a VM, whose processor is emulated.
const HERE: u64 = 600;
const IN_VM: u64 = 5400;
/// Tests that measure rates, by a part of their names.
const MEASURES: &str = "shaping";
/// Packets that the kernel and the oracle both judge there. The whole number runs on this machine; a VM is to
/// show that its kernel runs the same programs, at a fifteenth of the speed.
const ORACLE_CASES_IN_VM: &str = "10000";

/// Runs the tier on every kernel.
pub fn run(report: &mut Report, kernels: &[String], all: bool, filter: &[String]) {
    let binaries = match binaries::build("node-agent", "kernel") {
        Ok(binaries) => binaries,
        Err(error) => return report.add(Row::unable("kernel", &error)),
    };
    report.add(here(&binaries, filter));
    let kernels: Vec<&str> = kernels.iter().map(String::as_str).filter(|kernel| !kernel.is_empty()).collect();
    for rows in kernels.chunks(processors()) {
        in_vms(rows, &binaries, filter).into_iter().for_each(|row| report.add(row));
    }
    for kernel in TRIED.iter().filter(|_| all) {
        let row = match vm::fetch(kernel) {
            Ok(()) => in_vm(kernel, "", &binaries, filter, Show::Results),
            Err(error) => Row::unable(&tier(kernel), &error),
        };
        report.add(Row { required: false, ..row });
    }
}

/// An emulated machine keeps one processor busy.
fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Several kernels at a time.
fn in_vms(kernels: &[&str], binaries: &[TestBinary], filter: &[String]) -> Vec<Row> {
    let fetched: Vec<_> = kernels.iter().map(|kernel| (*kernel, vm::fetch(kernel))).collect();
    thread::scope(|scope| {
        let started: Vec<_> = fetched
            .into_iter()
            .map(|(kernel, fetched)| {
                let run = move || match fetched {
                    Ok(()) => in_vm(kernel, &format!("{kernel}: "), binaries, filter, Show::Everything),
                    Err(error) => Row::unable(&tier(kernel), &error),
                };
                (kernel, scope.spawn(run))
            })
            .collect();
        let ended = started.into_iter().map(|(kernel, thread)| {
            thread.join().unwrap_or_else(|_| Row::unable(&tier(kernel), &anyhow!("its thread panicked")))
        });
        ended.collect()
    })
}

fn tier(kernel: &str) -> String {
    format!("kernel {kernel}")
}

/// The arguments of each run of a test program: what measures runs by itself, one test after the other, since a test beside it takes
/// a processor that it needs; above all where there is but an emulated one. Who asks for some tests gets these.
fn runs(filter: &[String]) -> Vec<Vec<String>> {
    if !filter.is_empty() {
        return vec![filter.to_vec()];
    }
    let runs = [&["--skip", MEASURES][..], &[MEASURES, "--test-threads=1"]];
    runs.map(|run| run.iter().map(|&argument| argument.to_owned()).collect()).to_vec()
}

fn here(binaries: &[TestBinary], filter: &[String]) -> Row {
    let tests = binaries.iter().flat_map(|binary| {
        runs(filter).into_iter().map(move |arguments| {
            let mut test = process::command(&binary.program, ["--show-output"]);
            binary.prepare(&mut test);
            test.args(arguments);
            test
        })
    });
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    runner::run(&format!("kernel {} (here)", release.trim()), tests.collect(), HERE, Show::Everything)
}

/// Each run has a machine of its own, and the whole time.
fn in_vm(kernel: &str, prefix: &str, binaries: &[TestBinary], filter: &[String], show: Show) -> Row {
    let tests = binaries.iter().flat_map(|binary| {
        runs(filter).into_iter().map(move |arguments| {
            let mut test = vm::vmrun(kernel, IN_VM);
            binary.prepare(&mut test);
            test.env("L7EGG_ORACLE_CASES", ORACLE_CASES_IN_VM);
            test.arg("--").arg(&binary.program).arg("--show-output").args(arguments);
            test
        })
    });
    runner::run_beside(&tier(kernel), prefix, tests.collect(), IN_VM + 60, show)
}
