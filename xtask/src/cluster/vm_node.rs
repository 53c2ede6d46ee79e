//! Another node of the local cluster, in a VM: for what this machine's kernel lacks.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Result, bail};

use super::LocalCluster;
use super::local::kit;
use crate::process::step;
use crate::setup::{self, Part};
use crate::vm;

/// A node that boots or has joined. Dropping it ends the VM, and the cluster forgets it.
pub struct VmNode {
    dir: PathBuf,
}

impl LocalCluster {
    /// Starts a VM with one of Debian's kernels, which joins as a node with these images, and does not wait for it.
    /// Only pods that tolerate its taint, or ask for it by name, go there.
    pub fn join(&self, kernel: &str, archives: &[PathBuf]) -> Result<VmNode> {
        setup::ensure(&[Part::Vm])?;
        vm::fetch(kernel)?;
        // Ending the VM that is there would be somebody else's loss.
        if self.dir().join(VmNode::NAME).exists() {
            bail!(
                "{} has a {} already; take it away with cluster.sh leave",
                self.dir().display(),
                VmNode::NAME
            );
        }
        let node = VmNode { dir: self.dir().to_path_buf() };
        let mut join = kit(&node.dir, "join");
        join.args(["--kernel", kernel]).args(archives);
        step(format!("starting a VM with Linux {kernel} that is to be a node"), join).limit(60).run()?;
        Ok(node)
    }
}

impl VmNode {
    /// The node's name.
    pub const NAME: &str = "node3";

    /// Waits until the node is ready; an error if the VM ends before.
    pub fn ready(&self) -> Result<()> {
        step("waiting for the node in the VM", kit(&self.dir, "joined")).limit(660).quietly("vm-node")
    }
}

impl Drop for VmNode {
    fn drop(&mut self) {
        let mut leave = kit(&self.dir, "leave");
        leave.stdout(Stdio::null());
        if let Err(error) = step("ending the VM", leave).limit(60).shielded().run() {
            eprintln!("xtask: {error:#}\nxtask: it ends with the cluster");
        }
    }
}
