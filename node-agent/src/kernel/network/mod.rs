//! Pods' own networks: which one the programs believe, and the backstop on the host's side of its interfaces.
//!
//! ```text
//! interfaces/<uid>/<program>/…   what `netns::peers` pins for it
//! ```

mod believed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use l7egg_ebpf_common::abi::{ANY_INTERFACE, Network};

pub use self::believed::{POD_ADDRESSES, forget, forget_network, forget_unknown};
use self::believed::{
    believe_nobody, forget_interfaces, is_anothers, is_known, tell, tell_addresses, tell_covered,
};
use super::error::kernel;
use super::programs::{Maps, Programs};
use crate::causes::causes;
use crate::datapath::{Cover, DatapathError, ToldNetwork};
use crate::netns::tc::{self, Direction, Method, Program, Rank, Target};
use crate::netns::{self, Interface, Netns, NetnsError, PodNetwork, Process, SpecNetwork, peers};

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
    /// Where the network had no addresses: those of the pod's status, as far as they are known.
    told: Option<Vec<IpAddr>>,
}

impl Known {
    /// Whether nothing is to be learned by another look, as long as its process runs.
    fn is_as(&self, told: &ToldNetwork) -> bool {
        let is_news = |before: &Vec<IpAddr>| {
            let now = told.known_addresses();
            before.is_empty() || !now.is_empty() && before != now
        };
        !self.told.as_ref().is_some_and(is_news)
    }

    /// Whether it goes by the pod's status, whatever addresses its network has now.
    fn has_told_addresses(&self) -> bool {
        self.told.as_ref().is_some_and(|told| !told.is_empty())
    }
}

/// A pod whose network is looked for.
#[derive(Clone, Copy)]
pub struct Sought<'a> {
    /// Uid of the pod.
    pub uid: &'a str,
    /// Directory of its cgroup.
    pub cgroup: &'a Path,
    /// Its subject id.
    pub subject: u32,
    /// What is told of its network.
    pub told: &'a ToldNetwork,
    /// Other versions' pins for it.
    pub older: &'a [PathBuf],
}

/// What somebody has done to a pod's backstop.
pub enum Damage {
    /// It is not there.
    Gone,
    /// This has come before it, and may keep packets from it.
    Behind(String),
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

    /// Finds the pod's network and puts the backstop there, unless that is done.
    pub fn cover(
        &mut self,
        programs: &Programs,
        maps: &mut Maps,
        sought: Sought<'_>,
    ) -> Result<Cover, DatapathError> {
        let Sought { uid, cgroup, subject, told, older } = sought;
        if let Some(known) = self.known.get(uid)
            && known.process.is_none_or(Process::runs)
            && known.is_as(told)
        {
            return Ok(known.cover.clone());
        }
        let of = || format!("looking for the network of pod {uid}");
        let so_far = |known: &BTreeMap<String, Known>| {
            known.get(uid).map_or(Cover::NotYet, |known| known.cover.clone())
        };
        let (pod, process) = match netns::find(cgroup, &self.host, told.spec).map_err(kernel(of()))? {
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
        let is_told =
            addresses.is_empty() || is_same && self.known.get(uid).is_some_and(Known::has_told_addresses);
        if is_same && let Some(known) = self.known.get_mut(uid) {
            known.process = Some(process);
            if known.is_as(told) || is_told && told.known_addresses().is_empty() {
                return Ok(known.cover.clone());
            }
        }
        // gVisor takes the addresses away: they are its own stack's. Until the pod's status has them the backstop lets nothing pass.
        // Where the oldest process is in this network, it has only not been given them yet (cri-dockerd).
        let may_be_told = addresses.is_empty()
            && told.addresses.is_some()
            && interfaces.iter().any(|one| one.given)
            && !netns::is_oldest(cgroup, process).map_err(kernel(of()))?;
        if interfaces.is_empty() || addresses.is_empty() && !may_be_told {
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
        let addresses = if is_told { told.known_addresses() } else { &addresses };
        tell(maps, uid, subject, &interfaces, addresses, cookie)?;
        if is_told {
            let before = self.known.get(uid).and_then(|known| known.told.as_deref()).unwrap_or_default();
            tell_addresses(maps, subject, before, addresses)?;
        }
        let cover = self.attach(programs, uid, &pod)?;
        tell_covered(maps, subject, &interfaces, &cover)?;
        let cover = if addresses.is_empty() { Cover::NotYet } else { cover };
        let told = is_told.then(|| addresses.to_vec());
        self.known.insert(uid.into(), Known { cover: cover.clone(), process: Some(process), told });
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
        self.known.insert(uid.into(), Known { cover: Cover::Host, process: None, told: None });
        Ok(Cover::Host)
    }

    /// Cookie of the host's network namespace.
    pub fn host_netns(&self) -> Result<u64, NetnsError> {
        self.host.run(netns::cookie)?
    }

    /// Whether the pod's processes are in the host's network and in no other that leads there, or its first one is just being started.
    pub fn is_host(&self, cgroup: &Path) -> bool {
        matches!(netns::find(cgroup, &self.host, SpecNetwork::Own), Ok(Some(PodNetwork::Host)))
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

    /// What somebody has done to the backstop on one of a pod's interfaces, which is still there, if anything.
    pub fn damage(&self, uid: &str) -> Option<Damage> {
        let mut behind = None;
        for (name, direction) in BACKSTOP {
            let pins = self.pins(uid).join(name);
            for interface in peers::pinned(&pins).unwrap_or_default() {
                let Some(of) = peers::name(interface) else { continue };
                match tc::rank(name, direction, Target::new(interface, &self.host, &pins)) {
                    Ok(Rank::Absent) => return Some(Damage::Gone),
                    Ok(Rank::Behind(other)) => {
                        behind = Some(Damage::Behind(format!("{direction} of interface {of}: {other}")));
                    }
                    // Where that cannot be known nothing is concluded.
                    Ok(Rank::First) | Err(_) => {}
                }
            }
        }
        behind
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

/// Whether it is known which network is a subject's, whoever has found it.
pub fn is_found(maps: &Maps, subject: u32) -> bool {
    maps.networks.get(&subject, 0).is_ok_and(|network| is_known(&network))
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
