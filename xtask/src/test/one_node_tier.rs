//! Bandwidth limits of a real kubelet's pods, in a VM: few machines for developers have `fq`, all nodes do.

use anyhow::Result;

use super::binaries;
use super::report::Row;
use super::runner::{self, Show};
use crate::setup::{self, Part};
use crate::{images, vm, workspace};

/// The newer of the kernels that the product promises.
const KERNEL: &str = "6.12";
/// Seconds for all of it; the machine is emulated, and begins anew once if it dies of that.
const LIMIT: u64 = 3600;

/// Runs them.
pub fn run() -> Row {
    try_run().unwrap_or_else(|error| Row::unable("one node", &error))
}

fn try_run() -> Result<Row> {
    setup::ensure(&[Part::Cluster, Part::Images, Part::Vm])?;
    vm::fetch(KERNEL)?;
    let images = images::run()?;
    let tests = binaries::build("e2e", "bandwidth")?.into_iter().map(|binary| {
        let mut test = vm::vmrun_parallel(KERNEL, LIMIT);
        binary.prepare(&mut test);
        test.args(["--mem", "4096", "--"]).arg(workspace::kit("cluster/one-node.sh"));
        test.arg(workspace::root()).args(&images).arg("--");
        test.arg(&binary.program).args(["--test-threads=1", "--show-output"]);
        test
    });
    Ok(runner::run(&format!("one node {KERNEL}"), tests.collect(), 2 * LIMIT + 60, Show::Everything))
}
