//! The gate: programs on the cgroups that hold all pods, which let nothing leave pods that the agent has not decided about.
//!
//! ```text
//! gate/<id of a cgroup>/<program>   a link
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::HashMap;
use l7egg_ebpf_common::abi::HOST_NETNS;

use super::error::{insertion, kernel};
use super::pins::is_gone;
use super::programs::{Hook, Maps, Programs};
use super::{pods, sys};
use crate::datapath::DatapathError;

/// Marks before there is anything to be marked for.
pub const GATE: [Hook; 3] = [
    Hook { name: "gate_created", attach_type: 2 },
    Hook { name: "gate_patience", attach_type: 3 },
    Hook { name: "gate_egress", attach_type: 1 },
];

/// What the agent knows of the gate.
#[derive(Debug, Default)]
pub struct Gate {
    directory: PathBuf,
    /// Where it stands, by the ids of the cgroups; nowhere while it is open to all.
    places: BTreeSet<u64>,
    /// Of these, where programs are missing: an agent of another time had fewer.
    incomplete: BTreeSet<u64>,
    /// Ids of the cgroups of admitted pods.
    admitted: BTreeSet<u64>,
}

impl Gate {
    /// The one that an earlier agent left in `directory`, with the present programs.
    pub fn open(directory: PathBuf, programs: &Programs, maps: &Maps) -> Result<Self, DatapathError> {
        let mut gate = Self { directory, ..Self::default() };
        for entry in entries(&gate.directory)? {
            let Some(id) = entry.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            let mut links = 0;
            for hook in GATE {
                let pin = entry.join(hook.name);
                let Some((link, cgroup_id)) = pods::open_link(&pin)? else { continue };
                if cgroup_id == id {
                    let what = || kernel(format!("replacing the program of {}", pin.display()));
                    let is_there = sys::link_replace(link.as_fd(), programs.fd(hook)?).map_err(what())?;
                    links += usize::from(is_there);
                }
            }
            if links > 0 {
                gate.places.insert(id);
            }
            if links < GATE.len() {
                gate.incomplete.insert(id);
            }
        }
        gate.admitted = ids(&maps.admitted)?;
        Ok(gate)
    }

    /// Whether it stands anywhere.
    pub fn stands(&self) -> bool {
        !self.places.is_empty()
    }

    /// Whether a pod with this cgroup has to wait.
    pub fn is_closed_to(&self, cgroup_id: u64) -> bool {
        self.stands() && !self.admitted.contains(&cgroup_id)
    }

    /// Has it stand at these cgroups, of pods in a node with this network namespace.
    pub fn close(
        &mut self,
        parents: &[PathBuf],
        host_netns: u64,
        programs: &Programs,
        maps: &mut Maps,
    ) -> Result<(), DatapathError> {
        for parent in parents {
            let what = || kernel(format!("holding the new pods of {}", parent.display()));
            let directory = match File::open(parent) {
                Ok(directory) => directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(what()(error)),
            };
            let id = pods::inode(&directory, parent)?;
            if self.places.contains(&id) && !self.incomplete.contains(&id) {
                continue;
            }
            maps.admitted.insert(HOST_NETNS, host_netns, 0).map_err(|error| insertion("ADMITTED", error))?;
            let pins = self.directory.join(id.to_string());
            fs::create_dir_all(&pins).map_err(what())?;
            for hook in GATE {
                let pin = pins.join(hook.name);
                if pods::open_link(&pin)?.is_some_and(|(_, cgroup_id)| cgroup_id == id) {
                    continue;
                }
                let _ = fs::remove_file(&pin);
                let link = sys::link_create(programs.fd(hook)?, directory.as_fd(), hook.attach_type);
                sys::pin(link.map_err(what())?.as_fd(), &pin).map_err(what())?;
            }
            self.places.insert(id);
            self.incomplete.remove(&id);
        }
        Ok(())
    }

    /// Sees where programs have been taken away: there they are attached again when it is closed the next time. It stands there all
    /// the same: who has come meanwhile was not there when it was closed first.
    pub fn look(&mut self) {
        for id in &self.places {
            let pins = self.directory.join(id.to_string());
            let is_lost = |pin: &Path| match pods::open_link(pin) {
                Ok(Some((_, cgroup_id))) => cgroup_id != *id,
                _ => is_gone(pin),
            };
            if GATE.iter().any(|hook| is_lost(&pins.join(hook.name))) {
                self.incomplete.insert(*id);
            }
        }
    }

    /// Lets a pod through.
    pub fn admit(&mut self, cgroup_id: u64, maps: &mut Maps) -> Result<(), DatapathError> {
        if self.admitted.insert(cgroup_id)
            && let Err(error) = maps.admitted.insert(cgroup_id, 1, 0)
        {
            self.admitted.remove(&cgroup_id);
            return Err(insertion("ADMITTED", error));
        }
        Ok(())
    }

    /// Forgets pods that are no more.
    pub fn retain(&mut self, maps: &mut Maps, is_there: &dyn Fn(u64) -> bool) {
        self.admitted.retain(|id| {
            let stays = is_there(*id);
            if !stays {
                let _ = maps.admitted.remove(id);
            }
            stays
        });
    }

    /// Takes it away: all pods may pass, and none is remembered.
    pub fn remove(&mut self, maps: &mut Maps) -> Result<(), DatapathError> {
        remove(&self.directory)?;
        self.places.clear();
        self.retain(maps, &|_| false);
        Ok(())
    }
}

/// Whether another version has a gate.
pub fn is_in(version: &Path) -> bool {
    entries(&version.join("gate")).is_ok_and(|places| !places.is_empty())
}

/// Whom another version's gate lets through; none if it has none.
pub fn admitted_by(version: &Path) -> Option<BTreeSet<u64>> {
    if !is_in(version) {
        return None;
    }
    let map = aya::maps::MapData::from_pin(version.join("maps/ADMITTED")).ok()?;
    let map: HashMap<_, u64, u64> = aya::maps::Map::from_map_data(map).ok()?.try_into().ok()?;
    ids(&map).ok()
}

/// Takes away the gate whose pins are in a directory.
pub fn remove(directory: &Path) -> Result<(), DatapathError> {
    for place in entries(directory)? {
        // What loses packets goes first.
        for hook in GATE.iter().rev() {
            let _ = sys::unpin_link(&place.join(hook.name));
        }
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(kernel(format!("removing {}", directory.display()))(error))
        }
        _ => Ok(()),
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(kernel(format!("reading {}", directory.display()))(error)),
    }
}

fn ids(admitted: &HashMap<aya::maps::MapData, u64, u64>) -> Result<BTreeSet<u64>, DatapathError> {
    let ids: Result<BTreeSet<u64>, _> = admitted.keys().filter(|id| !matches!(id, Ok(HOST_NETNS))).collect();
    ids.map_err(kernel("reading map ADMITTED"))
}
