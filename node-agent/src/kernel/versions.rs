//! What an agent with another layout of the maps left: its pins, below a directory of another number.
//!
//! Its programs go on enforcing what they know. A pod gets the present ones beside them, then what it had learned by
//! then is taken over, and its old ones go; so nothing opens meanwhile. When every pod has them, the rest goes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use l7egg_ebpf_common::abi::{Config, Direction, Flow, FlowKey, Learned, LearnedKey, SubjectState, protocol};

use super::entries;
use super::error::kernel;
use super::names::Names;
use super::programs::{HOOKS, Maps, SubjectStorage};
use super::{HELD, gate, network, pods};
use crate::causes::causes;
use crate::datapath::{DatapathError, OlderPod};

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h.
const NO_EXIST: u64 = 1;

/// The directories of other versions.
pub struct Older(Vec<PathBuf>);

impl Older {
    /// Those beside `own`.
    pub fn find(own: &Path) -> Self {
        let root = own.parent().unwrap_or(own);
        let all = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        Self(all.filter(|path| path != own && path.join("maps").is_dir()).collect())
    }

    /// The secret of the name hash, so that names keep their hashes.
    pub fn hash_key(&self) -> Option<[u32; 2]> {
        self.0.iter().find_map(|version| {
            let config: Array<MapData, Config> = open(version, "CONFIG").ok()?;
            let key = config.get(&0, 0).ok()?.hash_key;
            (key[0] != 0).then_some(key)
        })
    }

    /// Whether there is anything of a pod.
    pub fn knows(&self, uid: &str) -> bool {
        self.0.iter().any(|version| version.join("pods").join(uid).is_dir())
    }

    /// The pods that have something there.
    pub fn pods(&self) -> impl Iterator<Item = String> {
        let directories = self.0.iter().flat_map(|version| fs::read_dir(version.join("pods")));
        directories.flatten().flatten().map(|pod| pod.file_name().to_string_lossy().into_owned())
    }

    /// A pod that has something there. One that cannot be read counts as one with a policy.
    pub fn pod(&self, uid: &str) -> Option<OlderPod> {
        self.0.iter().find_map(|version| {
            let pins = version.join("pods").join(uid);
            let links = HOOKS.iter().filter_map(|hook| pods::open_link(&pins.join(hook.name)).ok()?);
            let cgroup_id = links.map(|(_, cgroup_id)| cgroup_id).find(|id| *id != 0)?;
            let state = || -> Result<Option<SubjectState>, DatapathError> {
                let states: Array<MapData, SubjectState> = open(version, "SUBJECTS")?;
                Ok(subject_of(version, cgroup_id)?.and_then(|subject| states.get(&subject, 0).ok()))
            };
            let held = state().ok().flatten().is_some_and(|state| state.policy == HELD);
            Some(OlderPod { uid: uid.to_owned(), cgroup_id, held })
        })
    }

    /// Takes over what a pod has learned, and the flows that others opened to it. What cannot be read, because its layout
    /// is another one, is left out: the pod asks again.
    pub fn take_over(&self, uid: &str, cgroup: &Path, subject: u32, maps: &mut Maps) {
        // If it is gone, attaching tells.
        let Ok(cgroup_id) = fs::metadata(cgroup).map(|directory| directory.ino()) else { return };
        for version in self.0.iter().filter(|version| version.join("pods").join(uid).is_dir()) {
            match take_over(version, cgroup_id, subject, maps) {
                Ok(0) => {}
                Ok(taken) => tracing::info!(
                    uid,
                    taken,
                    "addresses that the pod had learned were taken over from another version of l7egg"
                ),
                Err(error) => tracing::warn!(
                    uid,
                    error = causes(&error),
                    "what the pod has learned could not be taken over from another version of l7egg: it asks again"
                ),
            }
        }
    }

    /// Ids of the cgroups that its gate lets through, if one of them has a gate.
    pub fn admitted(&self) -> Option<BTreeSet<u64>> {
        self.0.iter().find_map(|version| gate::admitted_by(version))
    }

    /// Takes their gates away.
    pub fn remove_gates(&self) -> Result<(), DatapathError> {
        self.0.iter().try_for_each(|version| gate::remove(&version.join("gate")))
    }

    /// Detaches the old programs from a pod.
    pub fn release(&self, uid: &str) -> Result<(), DatapathError> {
        for version in &self.0 {
            network::detach_one(&version.join("interfaces").join(uid))?;
            pods::remove_pins(&version.join("pods").join(uid));
        }
        Ok(())
    }

    /// Detaches them from all pods that are left, and removes the maps.
    pub fn retire(&mut self) -> Result<(), DatapathError> {
        for version in std::mem::take(&mut self.0) {
            network::detach_all(&version.join("interfaces"))?;
            for pod in fs::read_dir(version.join("pods")).into_iter().flatten().flatten() {
                pods::remove_pins(&pod.path());
            }
            fs::remove_dir_all(&version).map_err(kernel(format!("removing {}", version.display())))?;
            tracing::info!(directory = %version.display(), "another version of l7egg has been replaced");
        }
        Ok(())
    }
}

fn open<M>(version: &Path, name: &str) -> Result<M, DatapathError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let pinned = || Map::from_map_data(MapData::from_pin(version.join("maps").join(name))?)?.try_into();
    pinned().map_err(kernel(format!("opening map {name} of {}", version.display())))
}

/// Subject id of the pod with this cgroup.
fn subject_of(version: &Path, cgroup_id: u64) -> Result<Option<u32>, DatapathError> {
    let subjects: SubjectStorage = open(version, "SUBJECT")?;
    Ok(HOOKS.iter().find_map(|hook| {
        let key = aya::maps::cgroup_storage::CgroupStorageKey::new(cgroup_id, hook.attach_type);
        subjects.get(key, 0).ok().map(|subject| subject.id).filter(|id| *id != 0)
    }))
}

/// How many addresses were taken over.
fn take_over(version: &Path, cgroup_id: u64, subject: u32, maps: &mut Maps) -> Result<usize, DatapathError> {
    let states: Array<MapData, SubjectState> = open(version, "SUBJECTS")?;
    let Some(was) =
        subject_of(version, cgroup_id)?.filter(|was| states.get(was, 0).is_ok_and(|state| state.policy != 0))
    else {
        return Ok(0);
    };
    let names = Names { heads: open(version, "NAMES")?, tails: open(version, "NAME_TAILS")? };
    let learned: HashMap<MapData, LearnedKey, Learned> = open(version, "LEARNED")?;
    let mut taken = 0;
    entries::each(&learned, "LEARNED", |key, value| {
        if key.subject != was {
            return;
        }
        for slot in value.names.iter().filter(|slot| slot.name != 0) {
            maps.names.take_over(&names, slot.name, subject);
        }
        taken += usize::from(maps.learned.insert(LearnedKey { subject, ..key }, value, NO_EXIST).is_ok());
    })?;
    let flows: HashMap<MapData, FlowKey, Flow> = open(version, "FLOWS")?;
    entries::each(&flows, "FLOWS", |key, flow| {
        let came_in = flow.direction == Direction::Ingress as u32 && key.protocol != protocol::TCP;
        if key.subject == was && came_in {
            let _ = maps.flows.insert(FlowKey { subject, ..key }, flow, NO_EXIST);
        }
    })?;
    Ok(taken)
}
