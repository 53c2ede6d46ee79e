//! Caps by their names: which has which id in the maps.

use std::collections::{BTreeMap, BTreeSet};

use l7egg_ebpf_common::abi::{self, CAPS_MAX};

use super::objects::Maps;
use crate::datapath::DatapathError;
use crate::kernel::error::{insertion, kernel};
use crate::shaping::Cap;

/// Name of the cap that limits nothing.
const NONE: &str = "none";

/// The ids of caps.
#[derive(Default)]
pub struct CapIds {
    ids: BTreeMap<abi::CapName, u32>,
    last: u32,
}

impl CapIds {
    /// Reads what an earlier agent gave.
    pub fn open(maps: &Maps) -> Result<Self, DatapathError> {
        let mut ids = BTreeMap::new();
        for entry in maps.cap_ids.iter() {
            let (name, id) = entry.map_err(kernel("reading map CAP_IDS"))?;
            ids.insert(name, id);
        }
        let last = ids.values().copied().max().unwrap_or(0);
        Ok(CapIds { ids, last })
    }

    /// Writes a cap, and says which id it has. A cap that is in use keeps its id and its clock.
    pub fn write(&mut self, maps: &mut Maps, cap: &Cap) -> Result<u32, DatapathError> {
        let id = self.id_of(maps, in_kernel(&cap.name.to_string()))?;
        let new = cap.in_kernel();
        let now = maps.caps.get(&id, 0).map_err(kernel("reading map CAPS"))?;
        if now != new {
            maps.caps.set(id, new, 0).map_err(kernel(format!("writing cap {}", cap.name)))?;
        }
        Ok(id)
    }

    /// The id of a cap that limits nothing. What is sent under it waits for no more than what was sent before it.
    pub fn without_rate(&mut self, maps: &mut Maps) -> Result<u32, DatapathError> {
        let id = self.id_of(maps, in_kernel(NONE))?;
        maps.caps.set(id, abi::Cap::default(), 0).map_err(kernel("writing a cap that limits nothing"))?;
        Ok(id)
    }

    /// The name of a cap.
    pub fn name(&self, id: u32) -> Option<String> {
        let (name, _) = self.ids.iter().find(|(_, known)| **known == id)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Some(String::from_utf8_lossy(&name[..end]).into_owned())
    }

    /// Gives ids free that are not among these.
    pub fn retain(&mut self, maps: &mut Maps, used: &BTreeSet<u32>) {
        self.ids.retain(|name, id| {
            let keep = used.contains(id);
            if !keep {
                let _ = maps.cap_ids.remove(name);
            }
            keep
        });
    }

    fn id_of(&mut self, maps: &mut Maps, name: abi::CapName) -> Result<u32, DatapathError> {
        if let Some(id) = self.ids.get(&name) {
            return Ok(*id);
        }
        let id = self.free()?;
        maps.cap_ids.insert(name, id, 0).map_err(|error| insertion("CAP_IDS", error))?;
        self.ids.insert(name, id);
        Ok(id)
    }

    fn free(&mut self) -> Result<u32, DatapathError> {
        let used: BTreeSet<u32> = self.ids.values().copied().collect();
        for _ in 1..CAPS_MAX {
            self.last = if self.last + 1 >= CAPS_MAX { 1 } else { self.last + 1 };
            if !used.contains(&self.last) {
                return Ok(self.last);
            }
        }
        Err(DatapathError::MapFull {
            map: "CAPS",
            advice: format!("{} bandwidth limits are the most for one node", CAPS_MAX - 1),
        })
    }
}

/// Names of Kubernetes objects are short enough; one that is not loses its end, which is a uid's.
fn in_kernel(name: &str) -> abi::CapName {
    let mut bytes = [0; size_of::<abi::CapName>()];
    let len = name.len().min(bytes.len());
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}
