//! What an agent with another layout of the maps left: its pins, below a directory of another number.
//!
//! Its programs go on enforcing what they know. A pod gets the present ones beside them, on its cgroup and on its interfaces, then
//! what it had learned by then is taken over, and its old ones go; so nothing opens meanwhile. When every pod has them, the rest goes.
//! An agent may end at any point of this: what is there twice is enforced twice, and the next one goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use l7egg_ebpf_common::abi::{
    AddressKey, Attached, Config, Container, DOUBTED, Direction, Flow, FlowKey, Learned, LearnedKey,
    NarrowNetwork, Network, OF_NO_POLICY, SubjectState, protocol,
};

use super::entries;
use super::error::{insertion, kernel};
use super::names::Names;
use super::programs::{HOOKS, Maps, SubjectStorage};
use super::shares::Room;
use super::sys::NO_EXIST;
use super::{HELD, gate, handover, network, pods};
use crate::causes::causes;
use crate::datapath::{DatapathError, OlderPod};

/// The directories of other versions.
pub struct Older {
    own: PathBuf,
    versions: Vec<PathBuf>,
}

impl Older {
    /// Those beside `own`, also what is left of one that was removed in part.
    pub fn find(own: &Path) -> Self {
        let versions = all(own.parent().unwrap_or(own)).into_iter().filter(|path| path != own).collect();
        Self { own: own.to_owned(), versions }
    }

    /// They, for what else is pinned there.
    pub fn directories(&self) -> &[PathBuf] {
        &self.versions
    }

    /// The secret of the name hash, so that names keep their hashes.
    pub fn hash_key(&self) -> Option<[u32; 2]> {
        self.versions.iter().find_map(|version| {
            let config: Array<MapData, Config> = open(version, "CONFIG").ok()?;
            let key = config.get(&0, 0).ok()?.hash_key;
            (key[0] != 0).then_some(key)
        })
    }

    /// Whether there is anything of a pod.
    pub fn knows(&self, uid: &str) -> bool {
        self.versions.iter().any(|version| version.join("pods").join(uid).is_dir())
    }

    /// Where a pod's backstops are pinned.
    pub fn pins_of(&self, uid: &str) -> Vec<PathBuf> {
        self.versions.iter().map(|version| interfaces(version).join(uid)).collect()
    }

    /// Whether there is a pod's backstop.
    pub fn covers(&self, uid: &str) -> bool {
        self.pins_of(uid).iter().any(|pins| pins.is_dir())
    }

    /// The pods that have something there.
    pub fn pods(&self) -> impl Iterator<Item = String> {
        let directories = self.versions.iter().flat_map(|version| fs::read_dir(version.join("pods")));
        directories.flatten().flatten().map(|pod| pod.file_name().to_string_lossy().into_owned())
    }

    /// A pod that has something there. One that cannot be read counts as one with a policy, and so does one that has one by any of
    /// several versions.
    pub fn pod(&self, uid: &str) -> Option<OlderPod> {
        let pods = self.versions.iter().filter_map(|version| {
            let pins = version.join("pods").join(uid);
            let links = HOOKS.iter().filter_map(|hook| pods::open_link(&pins.join(hook.name)).ok()?);
            let cgroup_id = links.map(|(_, cgroup_id)| cgroup_id).find(|id| *id != 0)?;
            let state = || -> Result<Option<SubjectState>, DatapathError> {
                let states: Array<MapData, SubjectState> = open(version, "SUBJECTS")?;
                Ok(subject_of(version, cgroup_id)?.and_then(|subject| states.get(&subject, 0).ok()))
            };
            let held = state().ok().flatten().is_some_and(|state| state.policy == HELD);
            Some(OlderPod { uid: uid.to_owned(), cgroup_id, held })
        });
        pods.reduce(|one, other| OlderPod { held: one.held && other.held, ..one })
    }

    /// Takes over which network is the pod's, what it has learned, and the flows that others opened to it. What cannot be read, because its layout
    /// is another one, is left out: the pod asks again.
    pub fn take_over(&self, uid: &str, cgroup: &Path, subject: u32, maps: &mut Maps) {
        // If it is gone, attaching tells.
        let Ok(cgroup_id) = fs::metadata(cgroup).map(|directory| directory.ino()) else { return };
        for version in self.versions.iter().filter(|version| version.join("pods").join(uid).is_dir()) {
            if let Err(error) = take_network(version, cgroup_id, subject, maps) {
                tracing::warn!(
                    uid,
                    error = causes(&error),
                    "which network is the pod's could not be taken over from another version of l7egg: it is looked for again"
                );
            }
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

    /// Ids of the cgroups that its gate lets through, if there is one; through all of several.
    pub fn admitted(&self) -> Option<BTreeSet<u64>> {
        let admitted = self.versions.iter().filter_map(|version| gate::admitted_by(version));
        admitted.reduce(|one, other| one.intersection(&other).copied().collect())
    }

    /// Whether one has a gate.
    pub fn has_gate(&self) -> bool {
        self.versions.iter().any(|version| gate::is_in(version))
    }

    /// Takes their gates away.
    pub fn remove_gates(&self) -> Result<(), DatapathError> {
        self.versions.iter().try_for_each(|version| gate::remove(&version.join("gate")))
    }

    /// Detaches the old programs from a pod.
    pub fn release(&self, uid: &str) -> Result<(), DatapathError> {
        let all = self.interfaces();
        for version in &self.versions {
            network::detach_one(&interfaces(version), uid, &all)?;
            pods::remove_pins(&version.join("pods").join(uid));
        }
        Ok(())
    }

    /// Detaches them from all pods that are left, and removes the maps.
    pub fn retire(&mut self) -> Result<(), DatapathError> {
        while let Some(version) = self.versions.last() {
            detach(version, &self.interfaces())?;
            fs::remove_dir_all(version).map_err(kernel(format!("removing {}", version.display())))?;
            tracing::info!(directory = %version.display(), "another version of l7egg has been replaced");
            self.versions.pop();
        }
        Ok(())
    }

    fn interfaces(&self) -> Vec<PathBuf> {
        std::iter::once(&self.own).chain(&self.versions).map(|version| interfaces(version)).collect()
    }
}

/// The directories of all versions. There are others beside them, such as the agents' lock.
pub fn all(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let is_version = |name: &str| name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
    let versions = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_version));
    versions.map(|entry| entry.path()).collect()
}

/// Where pods' backstops are pinned; all versions have it there.
pub fn interfaces(version: &Path) -> PathBuf {
    version.join("interfaces")
}

/// Detaches the programs of a version from pods and from the cgroups that hold them; not those of bandwidth limits. What cannot be
/// detached keeps its pins. `all` are the places of the backstops of all versions.
pub fn detach(version: &Path, all: &[PathBuf]) -> Result<(), DatapathError> {
    let detached = network::detach_all(&interfaces(version), all);
    for pod in fs::read_dir(version.join("pods")).into_iter().flatten().flatten() {
        pods::remove_pins(&pod.path());
    }
    gate::remove(&version.join("gate")).and(detached)
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
    let subjects = with_containers(version, was)?;
    let names = Names { heads: open(version, "NAMES")?, tails: open(version, "NAME_TAILS")? };
    let learned: HashMap<MapData, LearnedKey, Learned> = open(version, "LEARNED")?;
    let mut known: BTreeMap<[u32; 4], (LearnedKey, Learned)> = BTreeMap::new();
    entries::each(&learned, "LEARNED", |key, value| {
        if subjects.contains(&key.subject) {
            let key = LearnedKey { subject, ..key };
            let entry = known.entry(key.address.words()).or_insert((key, value));
            entry.1 = handover::both(&entry.1, &value);
        }
    })?;
    let (mut taken, mut room) = (0, Room::look(&maps.shares, [&subject])?);
    for (key, value) in known.into_values() {
        for slot in value.names.iter().filter(|slot| slot.name != 0) {
            maps.names.take_over(&names, slot.name, subject);
        }
        if room.is_left(subject) && maps.learned.insert(key, value, NO_EXIST).is_ok() {
            room.take(subject);
            taken += 1;
        }
    }
    room.write(&mut maps.shares)?;
    let flows: HashMap<MapData, FlowKey, Flow> = open(version, "FLOWS")?;
    entries::each(&flows, "FLOWS", |key, flow| {
        if subjects.contains(&key.subject) && key.protocol != protocol::TCP {
            // What the pod opened stays its own, and is judged anew: an answer is not to make it somebody else's.
            let came_in = flow.direction == Direction::Ingress as u32;
            let stays = came_in || flow.policy == DOUBTED;
            let flow = if stays { flow } else { Flow { policy: OF_NO_POLICY, ..flow } };
            let _ = maps.flows.insert(FlowKey { subject, ..key }, flow, NO_EXIST);
        }
    })?;
    Ok(taken)
}

/// Has the programs believe the network that the pod had when it was new: by now it may have added addresses, and made networks for
/// itself.
fn take_network(version: &Path, cgroup_id: u64, subject: u32, maps: &mut Maps) -> Result<(), DatapathError> {
    let what = || kernel(format!("the network of subject {subject}"));
    let Some(was) = subject_of(version, cgroup_id)? else { return Ok(()) };
    let network = network_in(version, was)?;
    if network.netns == 0 || maps.networks.get(&subject, 0).map_err(what())?.netns != 0 {
        return Ok(());
    }
    let addresses: HashMap<MapData, AddressKey, u8> = open(version, "ADDRESSES")?;
    let attached: HashMap<MapData, u32, Attached> = open(version, "ATTACHED")?;
    let (mut own, mut peers) = (Vec::new(), Vec::new());
    entries::each(&addresses, "ADDRESSES", |key, _| own.extend((key.subject == was).then_some(key.address)))?;
    entries::each(&attached, "ATTACHED", |peer, of| peers.extend((of.subject == was).then_some(peer)))?;
    // The present programs are not on its interfaces yet. First, whether or not there is room for the rest: without it what the pod has by
    // now would be taken for what it was given.
    maps.networks.set(subject, Network { covered: 0, ..network }, 0).map_err(what())?;
    for peer in peers {
        let attached = Attached { subject, reserved: 0 };
        maps.attached.insert(peer, attached, 0).map_err(|error| insertion("ATTACHED", error))?;
    }
    own.truncate(2 * network::POD_ADDRESSES);
    for address in own {
        let key = AddressKey { subject, address };
        maps.addresses.insert(key, 1, 0).map_err(|error| insertion("ADDRESSES", error))?;
    }
    Ok(())
}

/// What a version believes of a subject's network.
fn network_in(version: &Path, subject: u32) -> Result<Network, DatapathError> {
    let what = || kernel("reading map NETWORKS");
    if let Ok(networks) = open::<Array<MapData, Network>>(version, "NETWORKS") {
        return networks.get(&subject, 0).map_err(what());
    }
    let networks: Array<MapData, NarrowNetwork> = open(version, "NETWORKS")?;
    networks.get(&subject, 0).map(Network::from).map_err(what())
}

/// A subject, and those of the containers into which it is divided.
fn with_containers(version: &Path, pod: u32) -> Result<BTreeSet<u32>, DatapathError> {
    let mut subjects = BTreeSet::from([pod]);
    // A version that knows none has no such map.
    if !version.join("maps/CONTAINERS").exists() {
        return Ok(subjects);
    }
    let containers: HashMap<MapData, u64, Container> = open(version, "CONTAINERS")?;
    entries::each(&containers, "CONTAINERS", |_, container| {
        if container.pod == pod && container.subject != 0 {
            subjects.insert(container.subject);
        }
    })?;
    Ok(subjects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_are_replaced() {
        let root = tempfile::tempdir().unwrap();
        for name in ["v6", "v7", "v8", "lock", "v", "vx"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let mut older = Older::find(&root.path().join("v7")).versions;
        older.sort();
        assert_eq!(older, [root.path().join("v6"), root.path().join("v8")]);
    }
}
