//! Pods' own networks: which one the programs believe, and the backstop on the host's side of its interfaces.
//!
//! ```text
//! interfaces/<uid>/<program>/…   what `netns::peers` pins for it
//! ```

mod believed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use l7egg_ebpf_common::abi::{ANY_INTERFACE, Network};

pub use self::believed::{POD_ADDRESSES, forget, forget_network, forget_unknown};
use self::believed::{believe_nobody, forget_interfaces, is_anothers, is_known, tell, tell_covered};
use super::error::kernel;
use super::programs::{Maps, Programs};
use crate::causes::causes;
use crate::datapath::{Cover, DatapathError};
use crate::netns::tc::{self, Direction, Method, Program, Target};
use crate::netns::{self, Interface, Netns, NetnsError, PodNetwork, Process, peers};

/// The programs and where they are attached. What may be replied to is remembered before anything is judged.
const BACKSTOP: [(&str, Direction); 2] = [("entering", Direction::Egress), ("leaving", Direction::Ingress)];

/// The networks of this node's pods.
pub struct Networks {
    host: Netns,
    method: Method,
    directory: PathBuf,
    known: BTreeMap<String, Known>,
}

/// What was found for a pod.
struct Known {
    cover: Cover,
    /// Whose network it is; not for pods in the host's.
    process: Option<Process>,
}

impl Networks {
    /// Those that an earlier agent left are found by and by. `directory` is for the pins; what there is of pods that are not known
    /// goes, as the maps have forgotten them.
    pub fn open(
        directory: PathBuf,
        maps: &Maps,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Self, DatapathError> {
        let host = Netns::current().map_err(kernel("opening the host's network namespace"))?;
        let networks = Self { host, method: Method::of_this_kernel(), directory, known: BTreeMap::new() };
        for uid in uids(&networks.directory).into_iter().filter(|uid| !is_known(uid)) {
            if let Err(error) = networks.detach(&uid, |interface| maps.attached.get(&interface, 0).is_ok()) {
                tracing::warn!(
                    uid,
                    error = causes(&error),
                    "the backstop of a pod that is gone could not be removed; tried again when the agent starts"
                );
            }
        }
        Ok(networks)
    }

    /// Where a pod's pins are.
    pub fn pins(&self, uid: &str) -> PathBuf {
        self.directory.join(uid)
    }

    /// Finds the pod's network and puts the backstop there, unless that is done. `older` are other versions' pins for it.
    pub fn cover(
        &mut self,
        programs: &Programs,
        maps: &mut Maps,
        uid: &str,
        cgroup: &Path,
        subject: u32,
        older: &[PathBuf],
    ) -> Result<Cover, DatapathError> {
        if let Some(known) = self.known.get(uid)
            && known.process.is_none_or(Process::runs)
        {
            return Ok(known.cover.clone());
        }
        let of = || format!("looking for the network of pod {uid}");
        let so_far = |known: &BTreeMap<String, Known>| {
            known.get(uid).map_or(Cover::NotYet, |known| known.cover.clone())
        };
        let (pod, process) = match netns::find(cgroup, &self.host).map_err(kernel(of()))? {
            Some(PodNetwork::Own { netns, process }) => (netns, process),
            Some(PodNetwork::OwnMaking) => {
                believe_nobody(maps, subject)?;
                return Ok(so_far(&self.known));
            }
            // Its processes are on their way, or have ended.
            Some(PodNetwork::Host) | None => return Ok(so_far(&self.known)),
        };
        let seen = pod
            .run(|| Ok((netns::interfaces(&self.host)?, netns::addresses()?, netns::cookie()?)))
            .and_then(|seen| seen)
            .map_err(kernel(of()))?;
        let (interfaces, addresses, cookie) = seen;
        let interfaces: Vec<Interface> =
            interfaces.into_iter().filter(|one| !one.loopback && one.up).collect();
        // What the programs believe, also if it was an agent before this one that found it.
        let before = maps.networks.get(&subject, 0).map_err(kernel(of()))?;
        let is_same = before.netns == cookie;
        if is_same && let Some(known) = self.known.get_mut(uid) {
            known.process = Some(process);
            return Ok(known.cover.clone());
        }
        if interfaces.is_empty() || addresses.is_empty() {
            return Ok(so_far(&self.known));
        }
        if !is_same && is_known(&before) {
            // Whose process is the oldest may have made a network for itself.
            if !self.is_made_anew(maps, uid, subject, &interfaces, older)? {
                return Ok(so_far(&self.known));
            }
            tracing::info!(uid, "the pod has another network now: its sandbox was made anew");
            self.known.remove(uid);
            self.detach(uid, |interface| is_anothers(maps, interface, subject))?;
            // The old one is what is believed until the new one is: never any.
            forget_interfaces(maps, subject)?;
        }
        tell(maps, uid, subject, &interfaces, &addresses, cookie)?;
        let cover = self.attach(programs, uid, &pod)?;
        tell_covered(maps, subject, &interfaces, &cover)?;
        self.known.insert(uid.into(), Known { cover: cover.clone(), process: Some(process) });
        Ok(cover)
    }

    /// Has a pod be in the host's network. What it sends from which of the node's addresses is the node's matter.
    pub fn join_host(&mut self, maps: &mut Maps, uid: &str, subject: u32) -> Result<Cover, DatapathError> {
        if self.known.get(uid).is_some_and(|known| known.process.is_none()) {
            return Ok(Cover::Host);
        }
        let what = || format!("telling that pod {uid} is in the host's network");
        let netns = self.host_netns().map_err(kernel(what()))?;
        let network = Network { netns, flags: ANY_INTERFACE, ..Network::default() };
        maps.networks.set(subject, network, 0).map_err(kernel(what()))?;
        self.known.insert(uid.into(), Known { cover: Cover::Host, process: None });
        Ok(Cover::Host)
    }

    /// Cookie of the host's network namespace.
    pub fn host_netns(&self) -> Result<u64, NetnsError> {
        self.host.run(netns::cookie)?
    }

    /// Whether the pod's processes are in the host's network, or its first one is just being started.
    pub fn is_host(&self, cgroup: &Path) -> bool {
        matches!(netns::find(cgroup, &self.host), Ok(Some(PodNetwork::Host)))
    }

    /// Whether whose network it is has ended.
    pub fn is_lost(&self, uid: &str) -> bool {
        self.known.get(uid).and_then(|known| known.process).is_some_and(|process| !process.runs())
    }

    /// Forgets a pod's network.
    pub fn release(&mut self, maps: &mut Maps, uid: &str, subject: u32) -> Result<(), DatapathError> {
        self.known.remove(uid);
        self.detach(uid, |interface| is_anothers(maps, interface, subject))?;
        forget(maps, subject)
    }

    /// Has a pod's backstop looked after anew: it was taken away.
    pub fn forget_cover(&mut self, uid: &str) {
        self.known.remove(uid);
    }

    /// Whether somebody has taken the backstop from one of a pod's interfaces, which is still there, and left its pins.
    pub fn is_detached(&self, uid: &str) -> bool {
        let is_lost = |(name, direction)| {
            let pins = self.pins(uid).join(name);
            let is_lost = |interface: u32| {
                let target = Target::new(interface, &self.host, &pins);
                peers::exists(interface) && matches!(tc::is_attached(name, direction, target), Ok(false))
            };
            peers::pinned(&pins).is_ok_and(|pinned| pinned.into_iter().any(is_lost))
        };
        BACKSTOP.into_iter().any(is_lost)
    }

    /// Whether these interfaces are those of a sandbox that was made anew. No pod can give itself one that was made in the host's
    /// network, but with CAP_NET_ADMIN it can take its own elsewhere.
    fn is_made_anew(
        &self,
        maps: &Maps,
        uid: &str,
        subject: u32,
        interfaces: &[Interface],
        older: &[PathBuf],
    ) -> Result<bool, DatapathError> {
        let mut had = BTreeSet::new();
        for entry in maps.attached.iter() {
            let (interface, attached) = entry.map_err(kernel("reading map ATTACHED"))?;
            had.extend((attached.subject == subject).then_some(interface));
        }
        for one in interfaces {
            let is_new = match one.host_peer {
                // Where a plugin moves them to the host, the next one may get the same index.
                Some(peer) => !had.contains(&peer) || !self.has_backstop(uid, peer, older)?,
                None => one.given && had.is_empty(),
            };
            if is_new {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the pod's backstop is on an interface of the host, maybe another version's.
    fn has_backstop(&self, uid: &str, interface: u32, older: &[PathBuf]) -> Result<bool, DatapathError> {
        let (name, direction) = BACKSTOP[1];
        for pins in std::iter::once(&self.pins(uid)).chain(older) {
            let pins = pins.join(name);
            if tc::is_attached(name, direction, Target::new(interface, &self.host, &pins))
                .map_err(kernel(format!("looking for the backstop of pod {uid}")))?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the backstop from a pod's interfaces. The index of one that is gone may be another pod's by now.
    fn detach(&self, uid: &str, is_anothers: impl Fn(u32) -> bool) -> Result<(), DatapathError> {
        let directory = self.pins(uid);
        for (name, _) in BACKSTOP {
            peers::forget_where(&directory.join(name), &is_anothers)
                .map_err(kernel(format!("forgetting interfaces of pod {uid} that are gone")))?;
        }
        detach(&self.host, &directory)
    }

    fn attach(&self, programs: &Programs, uid: &str, pod: &Netns) -> Result<Cover, DatapathError> {
        let directory = self.pins(uid);
        let mut uncovered = Vec::new();
        for (name, direction) in BACKSTOP {
            let program = Program { fd: programs.classifier(name)?, name, direction };
            let coverage = peers::attach(self.method, program, pod, &self.host, &directory.join(name))
                .map_err(kernel(format!("attaching the backstop of pod {uid}")))?;
            uncovered = coverage.uncovered.into_iter().map(|one| one.name).collect();
            let peers: BTreeSet<u32> = coverage.covered.iter().filter_map(|one| one.host_peer).collect();
            self.own_alone(uid, name, &peers)?;
        }
        Ok(if uncovered.is_empty() { Cover::Whole } else { Cover::Part { uncovered } })
    }

    /// Has no other pod's pins name these interfaces: those that had the same indices are gone, and whoever takes away what is
    /// pinned for these would take the pod's.
    fn own_alone(&self, uid: &str, name: &str, interfaces: &BTreeSet<u32>) -> Result<(), DatapathError> {
        // A link knows its interface.
        if self.method == Method::Tcx {
            return Ok(());
        }
        uids(&self.directory).iter().filter(|other| *other != uid).try_for_each(|other| {
            peers::forget_where(&self.pins(other).join(name), |interface| interfaces.contains(&interface))
                .map_err(kernel(format!("forgetting interfaces of pod {other} that are gone")))
        })
    }
}

/// The pods that have pins below a directory.
fn uids(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Takes the backstop from every pod below a directory of pins: a filter stays on its interface without them. `versions` are such
/// directories, of all versions.
pub fn detach_all(directory: &Path, versions: &[PathBuf]) -> Result<(), DatapathError> {
    let mut result = Ok(());
    for uid in uids(directory) {
        // One that cannot be detached keeps its pins, and keeps no other from it.
        result = result.and(detach_one(directory, &uid, versions));
    }
    result
}

/// Takes it from one pod. What its filters needed stays where another version has put its own in the place of these.
pub fn detach_one(directory: &Path, uid: &str, versions: &[PathBuf]) -> Result<(), DatapathError> {
    let pins = directory.join(uid);
    if !pins.exists() {
        return Ok(());
    }
    let host = Netns::current().map_err(kernel("opening the host's network namespace"))?;
    if Method::of_this_kernel() == Method::Clsact {
        leave_to_others(&host, directory, uid, versions)
            .map_err(kernel(format!("leaving to others what is pinned in {}", pins.display())))?;
    }
    detach(&host, &pins)
}

/// Has a pod's pins name nothing that others need.
fn leave_to_others(
    host: &Netns,
    directory: &Path,
    uid: &str,
    versions: &[PathBuf],
) -> Result<(), NetnsError> {
    for (name, _) in BACKSTOP {
        let pins = directory.join(uid).join(name);
        for heir in versions.iter().filter(|version| *version != directory) {
            peers::hand_over(name, host, &pins, &heir.join(uid).join(name))?;
        }
        // Whose of several pods an index is, nobody tells: the last of them takes away what is there.
        let mut of_others = BTreeSet::new();
        for other in uids(directory).iter().filter(|other| *other != uid) {
            of_others.extend(peers::pinned(&directory.join(other).join(name))?);
        }
        peers::forget_where(&pins, |interface| of_others.contains(&interface))?;
    }
    Ok(())
}

/// Takes it from the pod whose pins are in a directory.
fn detach(host: &Netns, directory: &Path) -> Result<(), DatapathError> {
    if !directory.exists() {
        return Ok(());
    }
    // Who came first has made what both need, and remembers it.
    for (name, direction) in BACKSTOP.into_iter().rev() {
        peers::detach_named(name, direction, host, &directory.join(name))
            .map_err(kernel(format!("detaching the backstop that is pinned in {}", directory.display())))?;
    }
    fs::remove_dir(directory).map_err(kernel(format!("removing {}", directory.display())))
}
