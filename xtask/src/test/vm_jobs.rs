//! Test programs in VMs, several at a time: an emulated machine keeps one processor busy.

use std::process::Command;
use std::sync::Mutex;
use std::thread;

use super::binaries::TestBinary;
use super::report::Row;
use super::runner::{self, Show};
use crate::vm;

/// Seconds for one VM.
const LIMIT: u64 = 2400;
/// Packets that the kernel and the oracle both judge there. The whole number runs on this machine; a VM is to
/// show that its kernel runs the same programs, at a fifteenth of the speed.
const ORACLE_CASES: &str = "10000";

/// What one VM is started for.
pub struct Job {
    kernel: String,
    tier: String,
    arguments: Vec<String>,
}

impl Job {
    /// The tests that these arguments of libtest are for, as `tier` of the report.
    pub fn new(kernel: &str, tier: String, arguments: Vec<String>) -> Self {
        Job { kernel: kernel.to_owned(), tier, arguments }
    }

    fn run(&self, binaries: &[TestBinary]) -> Row {
        let tests = binaries.iter().map(|binary| self.command(binary)).collect();
        let prefix = format!("{}: ", self.tier);
        runner::run_beside(&self.tier, &prefix, tests, LIMIT + 60, Show::Everything)
    }

    fn command(&self, binary: &TestBinary) -> Command {
        let mut test = vm::vmrun(&self.kernel, LIMIT);
        binary.prepare(&mut test);
        test.env("L7EGG_ORACLE_CASES", ORACLE_CASES);
        test.arg("--").arg(&binary.program).arg("--show-output").args(&self.arguments);
        test
    }
}

/// Runs all jobs, at most `at_once` of them at a time, and says what became of them, in their order.
pub fn run(jobs: &[Job], binaries: &[TestBinary], at_once: usize) -> Vec<Row> {
    let waiting = Mutex::new(jobs.iter().enumerate());
    let rows = Mutex::new(Vec::new());
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((number, job)) = next() {
                    let row = job.run(binaries);
                    if let Ok(mut rows) = rows.lock() {
                        rows.push((number, row));
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_default();
    rows.sort_by_key(|(number, _)| *number);
    rows.into_iter().map(|(_, row)| row).collect()
}
