//! What other versions of the agent leave, and what is left in the end.

use std::time::{Duration, Instant};

use l7egg_ebpf_common::abi::ABI_VERSION;
use l7egg_node_agent::datapath::Datapath;

use super::{Setup, fail, on_host};

impl Setup {
    /// Has the agent's pins look as if an agent of another version had left them.
    pub fn become_another_version(&self) {
        self.move_pins(&format!("l7egg/v{ABI_VERSION}"), "l7egg/v0");
    }

    /// Moves what is in a directory of bpffs to another one; out of sight of agents, if that is not below `l7egg`.
    pub fn move_pins(&self, from: &str, to: &str) {
        let in_bpffs = |path: &str| self.bpffs.path().join(path);
        std::fs::rename(in_bpffs(from), in_bpffs(to)).expect("to rename a directory in bpffs");
    }

    /// The versions that have pins.
    pub fn versions(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.bpffs.path().join("l7egg")).expect("pins");
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Has what other versions left go as far as nothing rests on it.
    pub fn retire_older(&mut self, is_wanted: bool) {
        let (kernel, pod) = (&mut self.kernel, &self.pod);
        on_host(pod, || kernel.retire_older(&|_| is_wanted)).unwrap_or_else(fail);
    }

    /// Waits until the pod is free: what the kernel does with links that nobody holds it does soon, not at once.
    pub fn becomes_free(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.pod.connect_one("tcp://198.18.0.80:80") != "ok" {
            assert!(Instant::now() < deadline, "the pod is not free");
        }
    }
}
