//! Names by their hashes.

use std::os::fd::AsFd;

use aya::Pod;
use aya::maps::{HashMap, IterableMap, MapData, MapError};
use l7egg_ebpf_common::abi::{NAME_HEAD, Name, NameTail};
use l7egg_policy::DomainName;

use super::error::kernel;
use super::sys::NO_EXIST;
use super::{entries, sys};
use crate::datapath::DatapathError;

/// The names that are remembered.
pub struct Names {
    /// Map `NAMES`.
    pub heads: HashMap<MapData, u64, Name>,
    /// Map `NAME_TAILS`.
    pub tails: HashMap<MapData, u64, NameTail>,
}

/// A name, and who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskedFor {
    /// When it was asked for last, as [`crate::clock::awake_ns`].
    pub at_ns: u64,
    /// Its hash.
    pub hash: u64,
    /// The subject that asked first.
    pub subject: u32,
}

impl Names {
    /// The name with this hash, if it is remembered.
    pub fn by_hash(&self, hash: u64) -> Option<DomainName> {
        let head = self.heads.get(&hash, 0).ok()?;
        let mut wire = head.wire.to_vec();
        if head.len as usize > NAME_HEAD {
            wire.extend(self.tails.get(&hash, 0).ok()?.wire);
        }
        DomainName::from_wire(wire.get(..head.len as usize)?)
    }

    /// All of them.
    pub fn asked(&self) -> Result<Vec<AskedFor>, DatapathError> {
        let mut asked = Vec::new();
        entries::each(&self.heads, "NAMES", |hash, name| {
            asked.push(AskedFor { at_ns: name.asked_ns, hash, subject: name.subject.into() });
        })?;
        Ok(asked)
    }

    /// Forgets one, unless it was asked for since then; whether it is gone. What was read of it before may be old by now.
    pub fn remove_unless_asked(&mut self, hash: u64, since_ns: u64) -> Result<bool, DatapathError> {
        if self.heads.get(&hash, 0).is_ok_and(|head| head.asked_ns >= since_ns) {
            return Ok(false);
        }
        // The tail first: programs that find the head gone write both anew, and would lose the new tail.
        let tail: Option<NameTail> = take(&self.tails, &hash, "NAME_TAILS")?;
        let Some(head) = take(&self.heads, &hash, "NAMES")? else { return Ok(true) };
        if head.asked_ns < since_ns {
            return Ok(true);
        }
        // Just now. If it is there again already, this one is too many.
        if let Some(tail) = tail {
            let _ = self.tails.insert(hash, tail, NO_EXIST);
        }
        Ok(self.heads.insert(hash, head, NO_EXIST).is_err())
    }

    /// Removes the tails of names that the programs could not write because the map of the heads was full.
    pub fn remove_lone_tails(&mut self) -> Result<(), DatapathError> {
        // All of them before the first look for a head: a program writes its tail a moment before.
        let mut tails = Vec::new();
        entries::each(&self.tails, "NAME_TAILS", |hash, _| tails.push(hash))?;
        for hash in tails {
            if matches!(self.heads.get(&hash, 0), Err(MapError::KeyNotFound)) {
                let _ = self.tails.remove(&hash);
            }
        }
        Ok(())
    }

    /// Takes one over from other maps, as one that `subject` asked for. One that is known already, or no room: the same as for an answer.
    pub fn take_over(&mut self, others: &Self, hash: u64, subject: u32) {
        let Ok(head) = others.heads.get(&hash, 0) else { return };
        if let Ok(tail) = others.tails.get(&hash, 0) {
            let _ = self.tails.insert(hash, tail, NO_EXIST);
        }
        // What another policy said means nothing here, and no policy has the id 0.
        let _ = self.heads.insert(hash, Name { policy: 0, subject: subject as u16, ..head }, NO_EXIST);
    }
}

fn take<V: Pod>(map: &HashMap<MapData, u64, V>, hash: &u64, name: &str) -> Result<Option<V>, DatapathError> {
    sys::map_take(map.map().fd().as_fd(), hash).map_err(kernel(format!("removing a name from map {name}")))
}
