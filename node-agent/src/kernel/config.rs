//! Node-wide settings in the map `CONFIG`.

use l7egg_ebpf_common::abi::Config;
use l7egg_ebpf_common::name::hash_key;

use super::error::kernel;
use super::programs::Maps;
use crate::datapath::{DatapathError, DatapathSettings};

/// Writes the settings; the secret of the name hash is made once, because the maps are full of hashes.
pub fn configure(
    maps: &mut Maps,
    settings: &DatapathSettings,
    before: Option<[u32; 2]>,
) -> Result<[u32; 2], DatapathError> {
    let known = maps.config.get(&0, 0).map_err(kernel("reading map CONFIG"))?;
    let hash_key = match before {
        _ if known.hash_key[0] != 0 => known.hash_key,
        Some(before) => before,
        None => [hash_key(random()?), hash_key(random()?)],
    };
    let config = Config {
        hash_key,
        min_ttl_ns: settings.min_ttl.as_nanos() as u64,
        max_ttl_ns: settings.max_ttl.as_nanos() as u64,
        ttl_grace_ns: settings.ttl_grace.as_nanos() as u64,
    };
    maps.config.set(0, config, 0).map_err(kernel("writing map CONFIG"))?;
    Ok(hash_key)
}

fn random() -> Result<u32, DatapathError> {
    let mut bytes = [0u8; 4];
    // SAFETY: the buffer is as long as said.
    let read = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if read != 4 {
        return Err(kernel("asking the kernel for random bytes")(std::io::Error::last_os_error()));
    }
    Ok(u32::from_ne_bytes(bytes))
}
