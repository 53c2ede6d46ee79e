//! Pods whose policy has changed: their TCP connections that are not allowed any more are reset.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use l7egg_ebpf_common::abi::{
    Address, Connection, DOUBTED, Direction, Flow, FlowKey, LearnedKey, OF_NO_POLICY, protocol,
};
use l7egg_ebpf_common::learned::CLAIMED;
use l7egg_policy::{CompiledPolicy, DomainName};

use super::entries;
use super::error::kernel;
use super::programs::Maps;
use super::sys;
use crate::causes::causes;
use crate::clock::boot_ns;
use crate::datapath::{DatapathError, Settled};
use crate::netns::{self, Netns, PodNetwork, SpecNetwork};
use crate::sockets::sock_diag::{Found, Id, SockDiag, states};
use crate::sockets::{Fate, View, fate, may_be_unread};

/// A pod or a container, and what is in force for it.
pub struct Subject<'a> {
    /// Its id.
    pub id: u32,
    /// The pod's; the same, unless it is a container.
    pub pod: u32,
    /// Its cgroups.
    pub of: &'a Cgroups<'a>,
    /// The policy in force.
    pub policy: &'a CompiledPolicy,
    /// Id of the policy.
    pub policy_id: u32,
    /// The programs were attached just now.
    pub is_first: bool,
    /// Programs of others may have changed where its connections lead: what was asked for is not known here, so
    /// none is reset. Their packets stop all the same.
    pub is_balanced: bool,
}

/// Whose sockets are meant.
pub enum Cgroups<'a> {
    /// A pod's, or those of a container of one.
    Below {
        /// The cgroup that is meant, with all below it.
        cgroup: &'a Path,
        /// The pod's, whose network it is; the same, unless it is a container.
        pod: &'a Path,
        /// What the pod's spec says of that.
        spec: SpecNetwork,
    },
    /// The node's: those of a tree but for some that are pods'. Of the whole tree, also of cgroups that are gone and
    /// have left sockets, as a service does that was restarted.
    All {
        /// Its root.
        of: &'a Path,
        /// The directories of pods.
        but: &'a [PathBuf],
    },
}

impl Cgroups<'_> {
    /// The one above all that are meant.
    pub fn root(&self) -> &Path {
        match self {
            Self::Below { cgroup, .. } => cgroup,
            Self::All { of, .. } => of,
        }
    }
}

/// What was found in one network namespace, and has yet to be done.
#[derive(Default)]
struct Look {
    settled: Settled,
    /// Connections that are to end.
    ending: Vec<Id>,
    /// Cookies of those to resolvers that may be unread, and whether the programs know them otherwise.
    unread: BTreeMap<u64, bool>,
    /// Of subjects that are looked at after their first policy: connected UDP sockets, and the ports of the others.
    datagrams: Vec<FlowKey>,
    receiving: BTreeSet<(u32, u16)>,
    /// Ports that the kernel chooses (`net.ipv4.ip_local_port_range`).
    chosen: Option<RangeInclusive<u16>>,
}

/// Resets what the policies do not allow, and tells the programs of connections that they do not know. The subjects are in one
/// network: a pod, or containers of one, so that its sockets are read once for all of them. `pinned` is where maps are pinned.
pub fn settle(maps: &mut Maps, pinned: &Path, subjects: &[Subject<'_>]) -> Result<Settled, DatapathError> {
    let Some(first) = subjects.first() else { return Ok(Settled::default()) };
    let host = Netns::current().map_err(kernel("finding the agent's network namespace"))?;
    let Some(netns) = network_of(first.of, host)? else { return Ok(Settled::default()) };
    let mut look = in_netns(&netns, "reading the sockets", || read(maps, pinned, subjects))?;
    for subject in subjects.iter().filter(|subject| subject.is_first) {
        if let Some(chosen) = &look.chosen {
            doubt_flows(maps, subject, chosen)?;
        }
    }
    for key in &look.datagrams {
        if !look.receiving.contains(&(key.subject, key.local_port)) {
            opened_here(maps, *key)?;
        }
    }
    look.settled.reset = look.ending.len() - look.settled.unread;
    if !look.ending.is_empty() {
        in_netns(&netns, "resetting connections", || destroy(&look.ending))?;
    }
    Ok(look.settled)
}

/// Where its sockets are; nowhere if it has no process there.
fn network_of(of: &Cgroups<'_>, host: Netns) -> Result<Option<Netns>, DatapathError> {
    let Cgroups::Below { pod, spec, .. } = of else { return Ok(Some(host)) };
    let what = || format!("looking for the network namespace of {}", pod.display());
    Ok(match netns::find(pod, &host, *spec).map_err(kernel(what()))? {
        None | Some(PodNetwork::OwnMaking) => None,
        Some(PodNetwork::Host) => Some(host),
        Some(PodNetwork::Own { netns, .. }) => Some(netns),
    })
}

/// Whether sockets of the cgroup with an id are meant.
fn is_ours(of: &Cgroups<'_>) -> Box<dyn Fn(u64) -> bool + Send + Sync> {
    match of {
        Cgroups::Below { cgroup, .. } => {
            let cgroups = cgroups(cgroup);
            Box::new(move |id| cgroups.contains(&id))
        }
        Cgroups::All { of, but } => {
            let pods: BTreeSet<u64> = but.iter().flat_map(|directory| cgroups(directory)).collect();
            let is_root = !of.join("cgroup.type").exists();
            let cgroups = if is_root { BTreeSet::new() } else { cgroups(of) };
            Box::new(move |id| !pods.contains(&id) && (is_root || cgroups.contains(&id)))
        }
    }
}

/// As `destination::judge` of the programs has them: those that have not run out, and the one given.
fn names_of(maps: &Maps, subject: u32, address: IpAddr, allowed_by: u64) -> Option<Vec<DomainName>> {
    let hashes: BTreeSet<u64> =
        learned(maps, subject, address, true).chain((allowed_by != 0).then_some(allowed_by)).collect();
    hashes.into_iter().map(|hash| maps.names.by_hash(hash)).collect()
}

/// Those that have run out.
fn names_over(maps: &Maps, subject: u32, address: IpAddr) -> Vec<DomainName> {
    learned(maps, subject, address, false).filter_map(|hash| maps.names.by_hash(hash)).collect()
}

/// Hashes of the names by which an address was learned, and that are believed or not.
fn learned(maps: &Maps, subject: u32, address: IpAddr, is_live: bool) -> impl Iterator<Item = u64> {
    let key = LearnedKey { subject, address: Address::from(address) };
    let now_ns = boot_ns();
    let slots = maps.learned.get(&key, 0).unwrap_or_default().names.into_iter();
    let slots = slots.filter(|slot| slot.name != 0 && slot.expires_ns != CLAIMED);
    slots.filter(move |slot| (slot.expires_ns >= now_ns) == is_live).map(|slot| slot.name)
}

/// Whether the programs could be told.
fn inherit(maps: &mut Maps, subject: &Subject<'_>, found: &Found, direction: Direction) -> bool {
    let connection = Connection {
        name: 0,
        remote: Address::from(found.remote.ip()),
        remote_port: found.remote.port(),
        local_port: found.local.port(),
        policy: 0,
        direction: direction as u32,
        subject: subject.pod,
        ..Connection::default()
    };
    maps.inherited.insert(found.cookie, connection, 0).is_ok()
}

/// While the programs were attached, answers to what the pod had sent before looked like the first datagrams of others,
/// and what others open no policy ends. So a flow from one of the ports that the kernel chooses to one that it does not
/// choose is taken for the pod's own.
fn doubt_flows(
    maps: &mut Maps,
    subject: &Subject<'_>,
    chosen: &RangeInclusive<u16>,
) -> Result<(), DatapathError> {
    let mut doubted = Vec::new();
    entries::each(&maps.flows, "FLOWS", |key, flow| {
        let came_in = key.subject == subject.id && flow.direction == Direction::Ingress as u32;
        if came_in && chosen.contains(&key.local_port) && !chosen.contains(&key.remote_port) {
            doubted.push((key, flow));
        }
    })?;
    for (key, flow) in doubted {
        let flow = Flow { policy: DOUBTED, direction: Direction::Egress as u32, ..flow };
        maps.flows.insert(key, flow, 0).map_err(kernel("writing to map FLOWS"))?;
    }
    Ok(())
}

/// The flow of a connected UDP socket from before is the pod's own: an answer that came first has made it one
/// that was opened from outside, which no policy ends. If other sockets receive on its port, it may be one. What the programs have
/// judged since they were attached stays, with its name.
fn opened_here(maps: &mut Maps, key: FlowKey) -> Result<(), DatapathError> {
    let is_judged = |known: Flow| known.direction == Direction::Egress as u32 && known.policy != DOUBTED;
    if maps.flows.get(&key, 0).is_ok_and(is_judged) {
        return Ok(());
    }
    let flow =
        Flow { seen_ns: boot_ns(), name: 0, policy: OF_NO_POLICY, direction: Direction::Egress as u32 };
    maps.flows.insert(key, flow, 0).map_err(kernel("writing to map FLOWS"))
}

/// Looks at all sockets, in the network namespace. In the host's there are everybody's.
fn read(maps: &mut Maps, pinned: &Path, subjects: &[Subject<'_>]) -> io::Result<Look> {
    let connections = sys::open_pinned(&pinned.join("CONNECTIONS"))?;
    let are_ours: Vec<_> = subjects.iter().map(|subject| is_ours(subject.of)).collect();
    let owner = |found: &Found| {
        let cgroup = found.cgroup?;
        subjects.iter().zip(&are_ours).find(|(_, is_ours)| is_ours(cgroup)).map(|(subject, _)| subject)
    };
    let mut diag = SockDiag::open()?;
    let mut listening: BTreeMap<u32, BTreeSet<u16>> = BTreeMap::new();
    diag.each(protocol::TCP, states::LISTEN, connections.as_fd(), |found| {
        if let Some(subject) = owner(&found) {
            listening.entry(subject.id).or_default().insert(found.local.port());
        }
    })?;
    let own = own_addresses()?;
    let mut look = Look::default();
    diag.each(protocol::TCP, states::CONNECTIONS, connections.as_fd(), |found| {
        if let Some(subject) = owner(&found) {
            let listening = listening.entry(subject.id).or_default();
            look_at(maps, subject, listening, &own, found, &mut look);
        }
    })?;
    if !look.unread.is_empty()
        && let Err(error) = read_unread(maps, pinned, &mut diag, &owner, &mut look)
    {
        tracing::warn!(
            error = causes(&error),
            "DNS over TCP that was open before could not be looked at: nothing is learned by it until it is opened again"
        );
    }
    let first = |found: &Found| owner(found).filter(|subject| subject.is_first);
    if subjects.iter().any(|subject| subject.is_first) {
        look.chosen = Some(chosen_ports());
        diag.each(protocol::UDP, states::ESTABLISHED, connections.as_fd(), |found| {
            look.datagrams.extend(first(&found).map(|subject| flow_of(subject, &found)));
        })?;
        diag.each(protocol::UDP, states::CLOSE, connections.as_fd(), |found| {
            look.receiving.extend(first(&found).map(|subject| (subject.id, found.local.port())));
        })?;
    }
    Ok(look)
}

/// Finds those whose beginning no program has seen. They end, so that they are opened again.
fn read_unread<'a>(
    maps: &mut Maps,
    pinned: &Path,
    diag: &mut SockDiag,
    owner: &dyn Fn(&Found) -> Option<&'a Subject<'a>>,
    look: &mut Look,
) -> io::Result<()> {
    let streams = sys::open_pinned(&pinned.join("DNS_STREAMS"))?;
    diag.each(protocol::TCP, states::ESTABLISHED, streams.as_fd(), |found| {
        if found.is_stored {
            return;
        }
        if let (Some(is_known), Some(subject)) = (look.unread.get(&found.cookie), owner(&found)) {
            if !is_known {
                inherit(maps, subject, &found, Direction::Egress);
            }
            look.settled.unread += 1;
            look.ending.push(found.id);
        }
    })
}

/// Decides about one connection.
fn look_at(
    maps: &mut Maps,
    subject: &Subject<'_>,
    listening: &BTreeSet<u16>,
    own: &BTreeSet<IpAddr>,
    mut found: Found,
    look: &mut Look,
) {
    if found.connection.is_none() {
        found.connection = maps.inherited.get(&found.cookie, 0).ok();
    }
    let names = |address: IpAddr, allowed_by: u64| names_of(maps, subject.id, address, allowed_by);
    let over = |address: IpAddr| names_over(maps, subject.id, address);
    let view = View {
        policy: subject.policy,
        id: subject.policy_id,
        is_first: subject.is_first,
        listening,
        own,
        names: &names,
        over: &over,
    };
    match fate(&found, &view) {
        Fate::Keep if !subject.is_balanced && may_be_unread(&found, &view) => {
            look.unread.insert(found.cookie, found.connection.is_some());
        }
        Fate::Keep => {}
        Fate::Accepted => {
            let is_told = inherit(maps, subject, &found, Direction::Ingress);
            look.settled.lost += usize::from(!is_told);
        }
        Fate::Reset { .. } if subject.is_balanced => {}
        Fate::Reset { is_known } => {
            if !is_known {
                inherit(maps, subject, &found, Direction::Egress);
            }
            look.ending.push(found.id);
        }
    }
}

fn flow_of(subject: &Subject<'_>, found: &Found) -> FlowKey {
    FlowKey {
        subject: subject.id,
        local_port: found.local.port(),
        remote_port: found.remote.port(),
        remote: Address::from(found.remote.ip()),
        protocol: protocol::UDP,
        reserved: [0; 3],
    }
}

fn chosen_ports() -> RangeInclusive<u16> {
    // Below /proc/sys/net is what belongs to the namespace of whoever reads.
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) => first..=last,
        // The kernel's own.
        _ => 32_768..=60_999,
    }
}

fn destroy(ending: &[Id]) -> io::Result<()> {
    let mut diag = SockDiag::open()?;
    ending.iter().try_for_each(|id| diag.destroy(id))
}

fn own_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(std::net::SocketAddrV4::from(*v4)));
        let v6 = || address.as_sockaddr_in6().map(|v6| SocketAddr::from(std::net::SocketAddrV6::from(*v6)));
        Some(v4.or_else(v6)?.ip())
    });
    Ok(addresses.collect())
}

fn in_netns<T: Send>(
    netns: &Netns,
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, DatapathError> {
    let what = || format!("{what} of network namespace {}", netns.id());
    netns.run(work).map_err(kernel(what()))?.map_err(|error| match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOENT) => DatapathError::Kernel {
            what: format!(
                "{}: this kernel has no CONFIG_INET_DIAG_DESTROY or no module tcp_diag; connections that are not allowed any more stop without notice",
                what()
            ),
            source: error.into(),
        },
        _ => kernel(what())(error),
    })
}

/// Ids of a pod's cgroup and of all below it.
fn cgroups(pod: &Path) -> BTreeSet<u64> {
    let mut ids = BTreeSet::new();
    let mut directories = vec![PathBuf::from(pod)];
    while let Some(directory) = directories.pop() {
        let Ok(metadata) = fs::metadata(&directory) else { continue };
        ids.insert(metadata.ino());
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    ids
}
