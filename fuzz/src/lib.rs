//! What the fuzz targets share: the walks of `l7egg-ebpf-common`, driven as the kernel programs drive them.

use l7egg_ebpf_common::answer::Message;
use l7egg_ebpf_common::name::{COMPRESSED_STEPS, NameWalk, READ_STEPS, Step};

/// Multipliers for the name hash.
pub const KEY: [u32; 2] = [0x1234_5678, 0x0bcd_ef01];

/// Reads the name at an offset of a message, within the steps that the kernel takes.
///
/// # Panics
/// If they are not enough.
pub fn read_name(message: &Message, at: u32, compressed: bool) -> Option<NameWalk> {
    let mut walk = NameWalk::default();
    let steps = if compressed {
        walk.start_compressed(at);
        COMPRESSED_STEPS
    } else {
        walk.start(at);
        READ_STEPS
    };
    for _ in 0..steps {
        match walk.read(message.byte(walk.offset() as u32)) {
            Step::More => {}
            Step::Done => return Some(walk),
            Step::Suffix(_) => panic!("reading finds no suffixes"),
            Step::Stop => return None,
        }
    }
    panic!("{steps} steps are not enough for a name");
}

/// The name in wire form that a walk has read.
pub fn wire(walk: &NameWalk) -> &[u8] {
    &walk.wire()[..walk.len()]
}
