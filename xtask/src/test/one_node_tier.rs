//! Bandwidth limits of a real kubelet's pods, on a node in a VM: few machines for developers have `fq`, all nodes do.

use anyhow::{Result, bail};

use super::binaries;
use super::report::Row;
use super::runner::{self, Show};
use crate::cluster::VmNode;
use crate::images;
use crate::kubernetes::Kubernetes;

/// The newer of the kernels that the product promises.
const KERNEL: &str = "6.12";
/// Seconds for the tests; their node's processor is emulated.
const LIMIT: u64 = 900;
/// How many of the tests measure a limit.
const MEASURING: usize = 2;
/// How many times as long as elsewhere they wait.
const PATIENCE: &str = "5";

/// Installs the product, which the e2e tests have removed in the end, lets the node join, and runs the tests there.
pub fn run(kubernetes: &Kubernetes) -> Row {
    try_run(kubernetes).unwrap_or_else(|error| Row::unable("one node", &error))
}

fn try_run(kubernetes: &Kubernetes) -> Result<Row> {
    let Kubernetes::Local(cluster) = kubernetes else { bail!("needs a cluster on this machine") };
    kubernetes.install()?;
    let node = cluster.join(KERNEL, &images::of_every_node()?)?;
    let tests = binaries::build("e2e", "bandwidth")?;
    node.ready()?;
    kubernetes.agent_is_ready(VmNode::NAME)?;
    let tests = tests.into_iter().map(|binary| {
        let mut test = kubernetes.command([&binary.program]);
        binary.prepare(&mut test);
        test.env("L7EGG_E2E_NODE", VmNode::NAME).env("L7EGG_PATIENCE", PATIENCE);
        test.args(["--test-threads=1", "--show-output"]);
        test
    });
    let mut row = runner::run(&format!("one node {KERNEL}"), tests.collect(), LIMIT, Show::Everything);
    // The tests of limits skip themselves where there is no fq, and that is what this node is for.
    if row.failures() == 0 && row.tally.passed < MEASURING {
        row.trouble = Some("no limit was measured: the node in the VM has no fq".to_owned());
    }
    if row.failures() > 0 {
        kubernetes.explain();
    }
    Ok(row)
}
