//! The node agent's suites with a harness of their own, adversary and chaos: on this machine's kernel, and, where that is
//! asked for, in VMs on Debian's, which have the modules for more ways.

use super::binaries::{self, TestBinary};
use super::report::{Report, Row};
use super::runner::{self, Show};
use crate::{process, vm};

/// Seconds for a suite on this machine, and in a VM, whose processor is emulated.
const HERE: u64 = 1800;
const IN_VM: u64 = 7200;

/// Runs a suite, here and on the kernels.
pub fn run(report: &mut Report, suite: &str, kernels: &[String], filter: &[String]) {
    let binaries = match binaries::build("node-agent", suite) {
        Ok(binaries) => binaries,
        Err(error) => return report.add(Row::unable(suite, &error)),
    };
    report.add(here(suite, &binaries, filter));
    for kernel in kernels.iter().filter(|kernel| !kernel.is_empty()) {
        report.add(in_vm(suite, kernel, &binaries, filter));
    }
}

fn here(suite: &str, binaries: &[TestBinary], filter: &[String]) -> Row {
    let tests = binaries.iter().map(|binary| {
        let mut test = process::command(&binary.program, filter);
        binary.prepare(&mut test);
        test
    });
    runner::run(suite, tests.collect(), HERE, Show::Results)
}

fn in_vm(suite: &str, kernel: &str, binaries: &[TestBinary], filter: &[String]) -> Row {
    let tier = format!("{suite} {kernel}");
    if let Err(error) = vm::fetch(kernel) {
        return Row::unable(&tier, &error);
    }
    let tests = binaries.iter().map(|binary| {
        let mut test = vm::vmrun(kernel, IN_VM);
        binary.prepare(&mut test);
        test.arg("--").arg(&binary.program).args(filter);
        test
    });
    runner::run(&tier, tests.collect(), IN_VM + 60, Show::Results)
}
