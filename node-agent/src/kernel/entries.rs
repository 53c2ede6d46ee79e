//! All entries of a map, in few calls of the kernel: one by one, each would be two, and the loop that enforces waits meanwhile.

use std::os::fd::AsFd;

use aya::Pod;
use aya::maps::IterableMap;

use super::error::kernel;
use super::sys;
use crate::datapath::DatapathError;

/// More than any bucket of ours has.
const AT_ONCE: usize = 1024;

/// Shows `see` every entry that is there all the time; what comes or goes meanwhile may be among them. `name` is the map's.
pub fn each<K: Pod, V: Pod>(
    map: &impl IterableMap<K, V>,
    name: &str,
    mut see: impl FnMut(K, V),
) -> Result<(), DatapathError> {
    // SAFETY: any bytes are a value of a `Pod`, zeros too.
    let (mut keys, mut values) =
        unsafe { (vec![std::mem::zeroed::<K>(); AT_ONCE], vec![std::mem::zeroed::<V>(); AT_ONCE]) };
    let mut from = None;
    loop {
        let batch = sys::map_batch(map.map().fd().as_fd(), from, &mut keys, &mut values);
        let (count, next) = batch.map_err(kernel(format!("reading map {name}")))?;
        keys.iter().zip(&values).take(count).for_each(|(key, value)| see(*key, *value));
        match next {
            Some(next) => from = Some(next),
            None => return Ok(()),
        }
    }
}
