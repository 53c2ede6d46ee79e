//! Names by their hashes.

use aya::maps::{HashMap, MapData};
use l7egg_ebpf_common::abi::Name;
use l7egg_policy::DomainName;

/// The name with this hash, if it is remembered.
pub fn by_hash(names: &HashMap<MapData, u64, Name>, hash: u64) -> Option<DomainName> {
    let name = names.get(&hash, 0).ok()?;
    DomainName::from_wire(name.wire.get(..name.len as usize)?)
}
