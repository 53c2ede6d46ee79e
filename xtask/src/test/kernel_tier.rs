//! The kernel tier: the node agent's kernel tests on this machine's kernel and in VMs on Debian's.

use super::binaries::{self, TestBinary};
use super::report::{Report, Row};
use super::runner::{self, Show};
use crate::{process, vm};

/// Tried and reported; they do not decide the result.
const TRIED: [&str; 3] = ["5.10", "6.18", "7.x"];
/// Seconds for the tests on this machine, and in a VM, whose processor is emulated.
const HERE: u64 = 600;
const IN_VM: u64 = 1800;
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
    for kernel in kernels.iter().filter(|kernel| !kernel.is_empty()) {
        report.add(in_vm(kernel, &binaries, filter, Show::Everything));
    }
    for kernel in TRIED.iter().filter(|_| all) {
        report.add(Row { required: false, ..in_vm(kernel, &binaries, filter, Show::Results) });
    }
}

fn here(binaries: &[TestBinary], filter: &[String]) -> Row {
    let tests = binaries.iter().map(|binary| {
        let mut test = process::command(&binary.program, ["--show-output"]);
        binary.prepare(&mut test);
        test.args(filter);
        test
    });
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    runner::run(&format!("kernel {} (here)", release.trim()), tests.collect(), HERE, Show::Everything)
}

fn in_vm(kernel: &str, binaries: &[TestBinary], filter: &[String], show: Show) -> Row {
    let tier = format!("kernel {kernel}");
    if let Err(error) = vm::fetch(kernel) {
        return Row::unable(&tier, &error);
    }
    let tests = binaries.iter().map(|binary| {
        let mut test = vm::vmrun(kernel, IN_VM);
        binary.prepare(&mut test);
        test.env("L7EGG_ORACLE_CASES", ORACLE_CASES_IN_VM);
        test.arg("--").arg(&binary.program).arg("--show-output").args(filter);
        test
    });
    runner::run(&tier, tests.collect(), IN_VM + 60, show)
}
