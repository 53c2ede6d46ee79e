//! Every program passes the verifier.

use l7egg_node_agent::kernel::Kernel;

use crate::harness::{Bpffs, fail, settings};

/// The verifier gives up at a million; a third of it leaves room for other kernels.
const INSTRUCTIONS_MAX: u32 = 300_000;

#[test]
fn programs_load_and_stay_far_from_the_limit() {
    let bpffs = Bpffs::new();
    let kernel = Kernel::open(&settings(&bpffs)).unwrap_or_else(fail);
    let all = kernel.verified().expect("the kernel tells about its programs");
    for verified in &all {
        let count = verified.instructions.map_or("unknown (before Linux 5.16)".into(), |n| n.to_string());
        println!("verified {} {count}", verified.program);
    }
    for verified in &all {
        assert!(verified.instructions.unwrap_or(0) < INSTRUCTIONS_MAX, "{verified:?}");
    }
}
