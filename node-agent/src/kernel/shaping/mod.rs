//! Bandwidth limits in the kernel: which pod is under which caps, and the program and qdisc on its interfaces.
//!
//! ```text
//! shaped/<slot>-<uid>/shape-<netns>-<interface>     the program's links
//! ```
//!
//! What is attached stays when the agent ends. A new agent finds the pods here, and applies their caps again
//! when it knows them; until then the old program goes on. So does another version's, whose pods are found in its directory.

mod caps;
mod interfaces;
mod objects;
mod older;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use l7egg_ebpf_common::abi::{self, CAPS_PER_POD, SHAPED_PODS_MAX, ShapeCounts};

use self::caps::CapIds;
use self::objects::{Factory, Maps};
use self::older::Older;
use super::error::kernel;
use crate::causes::causes;
use crate::datapath::{CapCounts, DatapathError, ShapedCounts, ShapedPod};
use crate::netns::tc::Method;
use crate::netns::{Netns, NetnsError, PodNetwork, SpecNetwork, all_of_processes, find};
use crate::shaping::Cap;

/// Where maps and pods are in the agent's directory.
const MAPS: &str = "maps";
const PODS: &str = "shaped";
/// Pods whose interfaces are looked at each time that something is collected: some tens of milliseconds.
const LOOKED_AT: usize = 32;
/// Within this what waits has left that a limit delays: the longest horizon is eight seconds.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);

/// All shaped pods of the node.
pub struct Shaping {
    directory: PathBuf,
    method: Method,
    factory: Factory,
    maps: Maps,
    cap_ids: CapIds,
    pods: BTreeMap<String, Pod>,
    /// Since when these have had no limit any more, by uid: what it has delayed still waits in their qdisc.
    draining: BTreeMap<String, Instant>,
    older: Older,
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
    /// Opens the maps and the pods of the agent's directory in bpffs, and finds those of other `versions`.
    pub fn open(directory: &Path, versions: &[PathBuf]) -> Result<Self, DatapathError> {
        let method = Method::of_this_kernel();
        let (factory, maps) = Factory::open(&directory.join(MAPS))?;
        let directory = directory.join(PODS);
        let cap_ids = CapIds::open(&maps)?;
        let pods: BTreeMap<String, Pod> =
            pinned(&directory)?.into_iter().map(|(slot, uid)| (uid, Pod { slot, applied: None })).collect();
        let older = Older::find(versions)?;
        let last_slot = pods.values().map(|pod| pod.slot).max().unwrap_or(0);
        let last_looked_at = String::new();
        let draining = BTreeMap::new();
        Ok(Shaping {
            directory,
            method,
            factory,
            maps,
            cap_ids,
            pods,
            draining,
            older,
            last_slot,
            last_looked_at,
        })
    }

    /// The pods.
    pub fn shaped(&self) -> Vec<ShapedPod> {
        let one = |(uid, pod): (&String, &Pod)| ShapedPod {
            uid: uid.clone(),
            caps: pod.applied.as_ref().map(|applied| applied.caps.clone()),
        };
        let of_others = self.older.uids().filter(|uid| !self.pods.contains_key(*uid));
        let of_others = of_others.map(|uid| ShapedPod { uid: uid.clone(), caps: None });
        self.pods.iter().map(one).chain(of_others).collect()
    }

    /// Whether other versions' limits are in force.
    pub fn rests_on_others(&self) -> bool {
        !self.older.is_empty()
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
                    self.give_up(uid, slot, cgroup);
                }
                return Err(error);
            }
        };
        self.draining.remove(uid);
        let applied = Some(Applied { caps: caps.to_vec(), netns, cgroup: cgroup.to_owned() });
        self.pods.insert(uid.into(), Pod { slot, applied });
        Ok(())
    }

    /// See [`crate::datapath::Datapath::unshape`].
    pub fn unshape(&mut self, uid: &str, cgroup: Option<&Path>) -> Result<(), DatapathError> {
        let slot = self.pods.get(uid).map(|pod| pod.slot);
        if slot.is_none() && !self.older.knows(uid) {
            return Ok(());
        }
        if let Some(cgroup) = cgroup {
            if let Some(slot) = slot
                && self.is_draining(uid, slot, cgroup)?
            {
                return Ok(());
            }
            self.restore(uid, slot, cgroup)?;
        }
        self.draining.remove(uid);
        if let Some(slot) = slot {
            self.forget(uid, slot);
        }
        self.older.forget(uid);
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
        self.write_ids(slot, ids)
    }

    fn write_ids(&mut self, slot: u32, caps: [u32; CAPS_PER_POD]) -> Result<(), DatapathError> {
        let new = abi::ShapedPod { caps };
        let now = self.maps.pods.get(&slot, 0).map_err(kernel("reading map SHAPED_PODS"))?;
        if now != new {
            self.maps.pods.set(slot, new, 0).map_err(kernel(format!("writing the caps of slot {slot}")))?;
        }
        Ok(())
    }

    /// Sees to the pod's interfaces; the id of its network namespace.
    fn apply(&mut self, uid: &str, slot: u32, cgroup: &Path, caps: &[Cap]) -> Result<u64, DatapathError> {
        let host = Netns::current()?;
        let netns = match find_own(cgroup, &host)? {
            Some(PodNetwork::Own { netns, .. }) => netns,
            // The first process is on its way from the one to the other.
            Some(PodNetwork::Host | PodNetwork::OwnMaking) | None => {
                return Err(DatapathError::network_not_ready(uid));
            }
        };
        let pins = self.pins(slot, uid);
        // Before the interfaces are touched: by this an agent after one that ended here finds how they were.
        fs::create_dir_all(&pins).map_err(kernel(format!("creating {}", pins.display())))?;
        if self.older.knows(uid) {
            let mut before = self.older.before(uid);
            before.add(&self.maps.saved, slot);
            before.write(&mut self.maps.saved, slot)?;
        }
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
        if self.older.knows(uid) {
            interfaces::succeed(place, &self.older.pins(uid))?;
            self.older.forget(uid);
        }
        Ok(netns.id())
    }

    /// Delays nothing that the pod sends from now on, and says whether something still waits: it would be lost with the qdisc.
    fn is_draining(&mut self, uid: &str, slot: u32, cgroup: &Path) -> Result<bool, DatapathError> {
        let host = Netns::current()?;
        let Some(PodNetwork::Own { netns, .. }) = find_own(cgroup, &host)? else { return Ok(false) };
        let mut caps = [0; CAPS_PER_POD];
        caps[0] = self.cap_ids.without_rate(&mut self.maps)?;
        self.write_ids(slot, caps)?;
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.applied = None;
        }
        let since = *self.draining.entry(uid.to_owned()).or_insert_with(Instant::now);
        Ok(since.elapsed() < DRAINED_WITHIN && interfaces::waiting(&netns, &host)? > 0)
    }

    /// Puts the interfaces back of a pod of which not all could be prepared.
    fn give_up(&mut self, uid: &str, slot: u32, cgroup: &Path) {
        // Another version's limit goes on.
        let restored = if self.older.knows(uid) {
            Ok(false)
        } else {
            self.restore(uid, Some(slot), cgroup).map(|()| true)
        };
        match restored {
            Ok(true) => return self.forget(uid, slot),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                uid,
                error = causes(&error),
                "the pod's interfaces could not be put back as they were; tried again with its limit"
            ),
        }
        self.pods.insert(uid.into(), Pod { slot, applied: None });
    }

    /// Takes what is attached off the pod's interfaces, if it still has some, and puts back what was there before.
    fn restore(&self, uid: &str, slot: Option<u32>, cgroup: &Path) -> Result<(), DatapathError> {
        let host = Netns::current()?;
        let Some(PodNetwork::Own { netns, .. }) = find_own(cgroup, &host)? else { return Ok(()) };
        let (mut pins, mut before) = (self.older.pins(uid), self.older.before(uid));
        if let Some(slot) = slot {
            pins.push(self.pins(slot, uid));
            before.add(&self.maps.saved, slot);
        }
        interfaces::restore(&netns, &host, &pins, &before)
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
        let Ok(Some(PodNetwork::Own { netns, .. })) = find_own(&applied.cgroup, host) else { return None };
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
        older::remove(&self.pins(slot, uid));
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
            advice: format!("{} pods with bandwidth limits are the most for one node", SHAPED_PODS_MAX - 1),
        })
    }

    fn clear_counts(&mut self, slot: u32) -> Result<(), DatapathError> {
        let now = self.maps.pod_counts.get(&slot, 0).map_err(kernel("reading map SHAPED_COUNTS"))?;
        let none = aya::maps::PerCpuValues::try_from(vec![ShapeCounts::default(); now.len()])
            .map_err(kernel("clearing counts"))?;
        self.maps.pod_counts.set(slot, none, 0).map_err(kernel("writing map SHAPED_COUNTS"))
    }
}

/// Takes the caps off all pods of these versions, and puts their interfaces back as they were, for an agent that goes for good. A
/// pod whose processes have all ended has no interfaces any more.
pub fn unshape_all(versions: &[PathBuf]) -> Result<(), DatapathError> {
    let mut shaped = Older::find(versions)?;
    if shaped.is_empty() {
        return Ok(());
    }
    let host = Netns::current()?;
    let all = all_of_processes()?;
    let uids: Vec<String> = shaped.uids().cloned().collect();
    let mut result = Ok(());
    for uid in uids {
        let (pins, before) = (shaped.pins(&uid), shaped.before(&uid));
        let mut there = before.netns().into_iter().filter_map(|netns| all.get(&netns));
        let restored = there.try_for_each(|netns| interfaces::restore(netns, &host, &pins, &before));
        // One that cannot be put back keeps what is known of it, and keeps no other from it.
        if restored.is_ok() {
            shaped.forget(&uid);
        }
        result = result.and(restored);
    }
    result
}

/// Pods in the host's network have no limits.
fn find_own(cgroup: &Path, host: &Netns) -> Result<Option<PodNetwork>, NetnsError> {
    find(cgroup, host, SpecNetwork::Own)
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
