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
use std::path::{Path, PathBuf};

use l7egg_ebpf_common::abi::{self, CAPS_PER_POD, SHAPED_PODS_MAX, ShapeCounts};

use self::caps::CapIds;
use self::objects::{Factory, Maps};
use super::error::kernel;
use crate::datapath::{CapCounts, DatapathError, ShapedCounts, ShapedPod};
use crate::netns::tc::Method;
use crate::netns::{Netns, PodNetwork, find};
use crate::shaping::Cap;

/// All shaped pods of the node.
pub struct Shaping {
    directory: PathBuf,
    method: Method,
    factory: Factory,
    maps: Maps,
    cap_ids: CapIds,
    pods: BTreeMap<String, Pod>,
    last_slot: u32,
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
}

impl Shaping {
    /// Opens the maps in `maps` and the pods in `directory`, both in bpffs.
    pub fn open(maps: &Path, directory: PathBuf, method: Method) -> Result<Self, DatapathError> {
        let (factory, maps) = Factory::open(maps)?;
        let cap_ids = CapIds::open(&maps)?;
        let pods: BTreeMap<String, Pod> =
            pinned(&directory)?.into_iter().map(|(slot, uid)| (uid, Pod { slot, applied: None })).collect();
        let last_slot = pods.values().map(|pod| pod.slot).max().unwrap_or(0);
        Ok(Shaping { directory, method, factory, maps, cap_ids, pods, last_slot })
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
        let applied = Some(Applied { caps: caps.to_vec(), netns });
        self.pods.insert(uid.into(), Pod { slot, applied });
        Ok(())
    }

    /// See [`crate::datapath::Datapath::unshape`].
    pub fn unshape(&mut self, uid: &str, cgroup: Option<&Path>) -> Result<(), DatapathError> {
        let Some(pod) = self.pods.get(uid) else { return Ok(()) };
        let slot = pod.slot;
        if let Some(cgroup) = cgroup {
            let host = Netns::current()?;
            if let Some(PodNetwork::Own(netns)) = find(cgroup, &host)? {
                interfaces::restore(&netns, &host, slot, &self.pins(slot, uid), &mut self.maps.saved)?;
            }
        }
        self.forget(uid, slot);
        self.pods.remove(uid);
        Ok(())
    }

    /// Gives free what no pod uses, and looks whether others have taken the qdisc or the program away: their
    /// pods are applied anew then.
    pub fn collect(&mut self) -> Result<(), DatapathError> {
        let mut used = BTreeSet::new();
        for pod in self.pods.values() {
            used.extend(self.maps.pods.get(&pod.slot, 0).map_err(kernel("reading map SHAPED_PODS"))?.caps);
        }
        self.cap_ids.retain(&mut self.maps, &used);
        Ok(())
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
            Some(PodNetwork::Own(netns)) => netns,
            // The first process is on its way from the one to the other.
            Some(PodNetwork::Host) | None => return Err(DatapathError::network_not_ready(uid)),
        };
        let pins = self.pins(slot, uid);
        let segments = caps.iter().map(Cap::segments).min().unwrap_or(u32::MAX);
        let applied = self.pods.get(uid).and_then(|pod| pod.applied.as_ref());
        let mut program = match applied {
            Some(applied) if applied.netns == netns.id() => None,
            _ => Some(self.factory.program(slot)?),
        };
        let place = interfaces::Place { netns: &netns, host: &host, slot, pins: &pins, method: self.method };
        interfaces::prepare(place, uid, segments, program.as_mut(), &mut self.maps.saved)?;
        Ok(netns.id())
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
