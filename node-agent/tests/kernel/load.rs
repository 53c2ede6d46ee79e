//! Every program passes the verifier.

use l7egg_node_agent::datapath::DatapathSettings;
use l7egg_node_agent::kernel::Kernel;

use crate::harness;

/// The verifier gives up at a million; an order of magnitude below leaves room for other kernels.
const INSTRUCTIONS_MAX: u32 = 300_000;

#[test]
fn programs_load_and_stay_far_from_the_limit() {
    let bpffs = harness::Bpffs::new("load");
    let settings = DatapathSettings { bpffs: bpffs.path().into(), ..harness::settings() };
    let kernel = Kernel::open(&settings).unwrap_or_else(|error| panic!("{error}"));
    for verified in kernel.verified().expect("the kernel tells about its programs") {
        let count = verified.instructions.map_or("unknown (before Linux 5.16)".into(), |n| n.to_string());
        println!("verified {} {count}", verified.program);
        assert!(verified.instructions.unwrap_or(0) < INSTRUCTIONS_MAX, "{verified:?}");
    }
}
