//! Bandwidth limits in the kernel: which pod is under which caps, and the program and qdisc on its interfaces.
//!
//! ```text
//! shaped/<slot>-<uid>/shape-<netns>-<interface>     the program's links
//! ```
//!
//! What is attached stays when the agent ends. A new agent finds the pods here, and applies their caps again
//! when it knows them; until then the old program goes on.

mod caps;
mod interfaces;
mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use l7egg_ebpf_common::abi::{self, CAPS_PER_POD, SHAPED_PODS_MAX, SavedInterfaceKey, ShapeCounts};

use self::caps::CapIds;
use self::objects::{Factory, Maps};
use super::error::kernel;
use crate::datapath::{CapCounts, DatapathError, ShapedCounts, ShapedPod};
use crate::netns::tc::Method;
use crate::netns::{Netns, PodNetwork, all_of_processes, find};
use crate::shaping::Cap;

/// Where maps and pods are in the agent's directory.
const MAPS: &str = "maps";
const PODS: &str = "shaped";
/// Pods whose interfaces are looked at each time that something is collected: some tens of milliseconds.
const LOOKED_AT: usize = 32;

/// All shaped pods of the node.
pub struct Shaping {
    directory: PathBuf,
    method: Method,
    factory: Factory,
    maps: Maps,
    cap_ids: CapIds,
    pods: BTreeMap<String, Pod>,
    last_slot: u32,
    /// The pod whose interfaces were looked at last.
    last_looked_at: String,
}

/// One of them.
struct Pod {
    slot: u32,
    /// What this agent has applied; nothing yet of what an earlier one did.
    applied: Option<Applied>,
}

struct Applied {
    caps: Vec<Cap>,
    netns: u64,
    cgroup: PathBuf,
}

impl Shaping {
    /// Opens the maps and the pods of the agent's directory in bpffs.
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        let method = Method::of_this_kernel();
        let (factory, maps) = Factory::open(&directory.join(MAPS))?;
        let directory = directory.join(PODS);
        let cap_ids = CapIds::open(&maps)?;
        let pods: BTreeMap<String, Pod> =
            pinned(&directory)?.into_iter().map(|(slot, uid)| (uid, Pod { slot, applied: None })).collect();
        let last_slot = pods.values().map(|pod| pod.slot).max().unwrap_or(0);
        let last_looked_at = String::new();
        Ok(Shaping { directory, method, factory, maps, cap_ids, pods, last_slot, last_looked_at })
    }

    /// The pods.
    pub fn shaped(&self) -> Vec<ShapedPod> {
        let one = |(uid, pod): (&String, &Pod)| ShapedPod {
            uid: uid.clone(),
            caps: pod.applied.as_ref().map(|applied| applied.caps.clone()),
        };
        self.pods.iter().map(one).collect()
    }

    /// See [`crate::datapath::Datapath::shape`].
    pub fn shape(&mut self, uid: &str, cgroup: &Path, caps: &[Cap]) -> Result<(), DatapathError> {
        let known = self.pods.get(uid).map(|pod| pod.slot);
        let slot = match known {
            Some(slot) => slot,
            None => self.free_slot()?,
        };
        // First, because it is all that a change of the rate needs, and it takes microseconds.
        self.write_caps(slot, caps)?;
        let netns = match self.apply(uid, slot, cgroup, caps) {
            Ok(netns) => netns,
            Err(error) => {
                if known.is_none() {
                    self.forget(uid, slot);
                }
                return Err(error);
            }
        };
        let applied = Some(Applied { caps: caps.to_vec(), netns, cgroup: cgroup.to_owned() });
        self.pods.insert(uid.into(), Pod { slot, applied });
        Ok(())
    }

    /// See [`crate::datapath::Datapath::unshape`].
    pub fn unshape(&mut self, uid: &str, cgroup: Option<&Path>) -> Result<(), DatapathError> {
        let Some(pod) = self.pods.get(uid) else { return Ok(()) };
        let slot = pod.slot;
        if let Some(cgroup) = cgroup {
            let host = Netns::current()?;
            if let Some(PodNetwork::Own { netns, .. }) = find(cgroup, &host)? {
                interfaces::restore(&netns, &host, slot, &self.pins(slot, uid), &mut self.maps.saved)?;
            }
        }
        self.forget(uid, slot);
        self.pods.remove(uid);
        Ok(())
    }

    /// Gives free what no pod uses, and looks whether others have taken a qdisc or a program away: the caps of
    /// their pods then count as not applied, so that they are applied again.
    pub fn collect(&mut self) -> Result<(), DatapathError> {
        let mut used = BTreeSet::new();
        for pod in self.pods.values() {
            used.extend(self.maps.pods.get(&pod.slot, 0).map_err(kernel("reading map SHAPED_PODS"))?.caps);
        }
        self.cap_ids.retain(&mut self.maps, &used);
        self.look_after_interfaces()
    }

    /// What the programs counted, by pod and by cap.
    pub fn counts(&self) -> Result<ShapedCounts, DatapathError> {
        let mut counts = ShapedCounts::default();
        let mut caps = BTreeSet::new();
        for (uid, pod) in &self.pods {
            let of_pod =
                self.maps.pod_counts.get(&pod.slot, 0).map_err(kernel("reading map SHAPED_COUNTS"))?;
            counts.pods.insert(uid.clone(), sum(of_pod.iter()));
            caps.extend(self.maps.pods.get(&pod.slot, 0).map_err(kernel("reading map SHAPED_PODS"))?.caps);
        }
        for id in caps.into_iter().filter(|id| *id != 0) {
            let Some(name) = self.cap_ids.name(id) else { continue };
            let of_cap = self.maps.cap_counts.get(&id, 0).map_err(kernel("reading map CAP_COUNTS"))?;
            counts.caps.push(CapCounts { name, counts: sum(of_cap.iter()) });
        }
        Ok(counts)
    }

    /// Instructions that the verifier looks at for the program.
    pub fn verified(&self) -> Result<Option<u32>, DatapathError> {
        self.factory.program(0)?.verified()
    }

    fn write_caps(&mut self, slot: u32, caps: &[Cap]) -> Result<(), DatapathError> {
        let mut ids = [0; CAPS_PER_POD];
        for (id, cap) in ids.iter_mut().zip(caps) {
            *id = self.cap_ids.write(&mut self.maps, cap)?;
        }
        let new = abi::ShapedPod { caps: ids };
        let now = self.maps.pods.get(&slot, 0).map_err(kernel("reading map SHAPED_PODS"))?;
        if now != new {
            self.maps.pods.set(slot, new, 0).map_err(kernel(format!("writing the caps of slot {slot}")))?;
        }
        Ok(())
    }

    /// Sees to the pod's interfaces; the id of its network namespace.
    fn apply(&mut self, uid: &str, slot: u32, cgroup: &Path, caps: &[Cap]) -> Result<u64, DatapathError> {
        let host = Netns::current()?;
        let netns = match find(cgroup, &host)? {
            Some(PodNetwork::Own { netns, .. }) => netns,
            // The first process is on its way from the one to the other.
            Some(PodNetwork::Host | PodNetwork::OwnMaking) | None => {
                return Err(DatapathError::network_not_ready(uid));
            }
        };
        let pins = self.pins(slot, uid);
        let segments = segments(caps);
        let applied = self.pods.get(uid).and_then(|pod| pod.applied.as_ref());
        let place = interfaces::Place { netns: &netns, host: &host, slot, pins: &pins, method: self.method };
        let mut program = match applied {
            Some(applied) if applied.netns == netns.id() => None,
            // Loading it takes tens of milliseconds.
            _ if !interfaces::is_there_any(place)? => return Err(DatapathError::network_not_ready(uid)),
            _ => Some(self.factory.program(slot)?),
        };
        interfaces::prepare(place, uid, segments, program.as_mut(), &mut self.maps.saved)?;
        Ok(netns.id())
    }

    /// Looks at the next pods' interfaces.
    fn look_after_interfaces(&mut self) -> Result<(), DatapathError> {
        let host = Netns::current()?;
        let after = (Bound::Excluded(self.last_looked_at.clone()), Bound::Unbounded);
        let next = self.pods.range(after).chain(&self.pods).map(|(uid, _)| uid.clone());
        for uid in next.take(LOOKED_AT.min(self.pods.len())).collect::<Vec<_>>() {
            if let Some(lost) = self.lost(&uid, &host) {
                tracing::warn!(uid, "{lost}: the pod's bandwidth limit is applied again");
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.applied = None;
                }
            }
            self.last_looked_at = uid;
        }
        Ok(())
    }

    /// What is not as this agent made it, if anything. A pod that cannot be looked at is left to the next time.
    fn lost(&self, uid: &str, host: &Netns) -> Option<String> {
        let pod = self.pods.get(uid)?;
        let applied = pod.applied.as_ref()?;
        let Ok(Some(PodNetwork::Own { netns, .. })) = find(&applied.cgroup, host) else { return None };
        if netns.id() != applied.netns {
            return Some("the pod has another network namespace".into());
        }
        let segments = segments(&applied.caps);
        let pins = self.pins(pod.slot, uid);
        let place =
            interfaces::Place { netns: &netns, host, slot: pod.slot, pins: &pins, method: self.method };
        interfaces::lost(place, segments, &self.maps.saved).unwrap_or_else(|error| {
            tracing::debug!(uid, %error, "the pod's interfaces could not be looked at");
            None
        })
    }

    /// Removes what is known of a slot.
    fn forget(&mut self, uid: &str, slot: u32) {
        let pins = self.pins(slot, uid);
        for entry in fs::read_dir(&pins).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&pins);
        let _ = self.maps.pods.set(slot, abi::ShapedPod::default(), 0);
        interfaces::forget(slot, &mut self.maps.saved);
    }

    fn pins(&self, slot: u32, uid: &str) -> PathBuf {
        self.directory.join(format!("{slot}-{uid}"))
    }

    fn free_slot(&mut self) -> Result<u32, DatapathError> {
        let used: BTreeSet<u32> = self.pods.values().map(|pod| pod.slot).collect();
        for _ in 1..SHAPED_PODS_MAX {
            self.last_slot = if self.last_slot + 1 >= SHAPED_PODS_MAX { 1 } else { self.last_slot + 1 };
            if !used.contains(&self.last_slot) {
                self.clear_counts(self.last_slot)?;
                return Ok(self.last_slot);
            }
        }
        Err(DatapathError::MapFull {
            map: "SHAPED_PODS",
            advice: format!("{SHAPED_PODS_MAX} pods with bandwidth limits are the most for one node"),
        })
    }

    fn clear_counts(&mut self, slot: u32) -> Result<(), DatapathError> {
        let now = self.maps.pod_counts.get(&slot, 0).map_err(kernel("reading map SHAPED_COUNTS"))?;
        let none = aya::maps::PerCpuValues::try_from(vec![ShapeCounts::default(); now.len()])
            .map_err(kernel("clearing counts"))?;
        self.maps.pod_counts.set(slot, none, 0).map_err(kernel("writing map SHAPED_COUNTS"))
    }
}

/// Takes the caps off all pods, and puts their interfaces back as they were, for an agent that goes for good. A
/// pod whose processes have all ended has no interfaces any more.
pub fn unshape_all(directory: &Path) -> Result<(), DatapathError> {
    if !directory.join(PODS).exists() {
        return Ok(());
    }
    let mut shaping = Shaping::open(directory)?;
    let host = Netns::current()?;
    let all = all_of_processes()?;
    let pods: Vec<(String, u32)> = shaping.pods.iter().map(|(uid, pod)| (uid.clone(), pod.slot)).collect();
    for (uid, slot) in pods {
        let pins = shaping.pins(slot, &uid);
        let saved: Vec<SavedInterfaceKey> = shaping.maps.saved.keys().flatten().collect();
        let netns: BTreeSet<u64> = saved.iter().filter(|key| key.slot == slot).map(|key| key.netns).collect();
        for netns in netns.iter().filter_map(|id| all.get(id)) {
            interfaces::restore(netns, &host, slot, &pins, &mut shaping.maps.saved)?;
        }
        shaping.forget(&uid, slot);
    }
    Ok(())
}

fn segments(caps: &[Cap]) -> u32 {
    caps.iter().map(Cap::segments).min().unwrap_or(u32::MAX)
}

/// The slots and uids that have pins.
fn pinned(directory: &Path) -> Result<Vec<(u32, String)>, DatapathError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(kernel(format!("reading {}", directory.display()))(error)),
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names
        .filter_map(|name| {
            let (slot, uid) = name.split_once('-')?;
            Some((slot.parse().ok()?, uid.to_owned()))
        })
        .collect())
}

fn sum<'a>(counts: impl Iterator<Item = &'a ShapeCounts>) -> ShapeCounts {
    counts.fold(ShapeCounts::default(), |sum, one| ShapeCounts {
        bytes: sum.bytes + one.bytes,
        packets: sum.packets + one.packets,
        delayed: sum.delayed + one.delayed,
        delay_ns: sum.delay_ns + one.delay_ns,
        marked: sum.marked + one.marked,
        dropped: sum.dropped + one.dropped,
    })
}
