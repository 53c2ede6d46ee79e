//! The ring buffer, and the names of the addresses in it.

use std::path::Path;

use aya::maps::{HashMap, Map, MapData, RingBuf};
use l7egg_ebpf_common::abi::{Address, Event, Learned, LearnedKey};

use super::error::kernel;
use super::names::Names;
use crate::clock::boot_ns;
use crate::datapath::{DatapathError, EventSource};
use crate::flow_log;

/// The programs' events.
pub struct Ring {
    ring: RingBuf<MapData>,
    learned: HashMap<MapData, LearnedKey, Learned>,
    names: Names,
}

impl Ring {
    /// Takes over the ring buffer. The names of addresses are in maps pinned in `directory`.
    pub fn open(ring: RingBuf<MapData>, directory: &Path) -> Result<Self, DatapathError> {
        let names = Names { heads: pinned(directory, "NAMES")?, tails: pinned(directory, "NAME_TAILS")? };
        Ok(Self { ring, learned: pinned(directory, "LEARNED")?, names })
    }
}

impl EventSource for Ring {
    fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if item.len() == size_of::<Event>() {
                // SAFETY: as long as an event, and any bytes are one; read unaligned.
                return Some(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
            }
        }
    }

    fn names(&self, subject: u32, address: Address) -> Vec<flow_log::Learned> {
        let Ok(learned) = self.learned.get(&LearnedKey { subject, address }, 0) else { return Vec::new() };
        let now_ns = boot_ns();
        let known = learned.names.iter().filter(|slot| slot.name != 0);
        let named = known.filter_map(|slot| {
            let name = self.names.by_hash(slot.name)?;
            Some(flow_log::Learned { name, is_over: slot.expires_ns < now_ns })
        });
        named.collect()
    }
}

/// A map by its pin: the events are read in a thread of their own.
fn pinned<K: aya::Pod, V: aya::Pod>(
    directory: &Path,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, DatapathError> {
    let what = || kernel(format!("opening map {name} in {}", directory.display()));
    let data = MapData::from_pin(directory.join(name)).map_err(what())?;
    let map = Map::from_map_data(data).map_err(what())?;
    HashMap::try_from(map).map_err(what())
}
