//! The interfaces of a network namespace.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::error::refused;
use super::rtnetlink::Rtnetlink;
use super::{Netns, NetnsError};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name there.
    pub name: String,
    /// `veth`, `ipvlan`, `macvlan` …: the kernel's `rtnl_link_ops` name; empty for hardware and loopback.
    pub kind: String,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// Whether it is switched on (`IFF_UP`).
    pub up: bool,
    /// Index of the other end of the wire (veth) in the host's namespace, if it is there. None of netkit: a CNI plugin's program on
    /// it sends packets elsewhere before they come to that end.
    pub host_peer: Option<u32>,
    /// Whether nobody but who works in the host's network can have made it: its other end is there, or what it is on top of
    /// (macvlan, ipvlan), or it is hardware.
    pub given: bool,
    /// Most segments of a packet that the stack leaves to the interface (`gso_max_segs`).
    pub gso_max_segs: u32,
}

/// The interfaces of the namespace that the calling thread is in. `host` is the agent's namespace.
///
/// # Errors
/// The kernel does not tell.
pub fn interfaces(host: &Netns) -> Result<Vec<Interface>, NetnsError> {
    let mut rtnetlink = Rtnetlink::open().map_err(refused("opening a netlink socket"))?;
    let host = host_nsid(&mut rtnetlink, host)?;
    let answers = rtnetlink
        .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
        .map_err(refused("listing interfaces"))?;
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(interface(link, host)),
        _ => None,
    });
    Ok(links.collect())
}

/// Those first that their pod cannot have made itself, so that it cannot push them out where only some count.
pub fn by_who_made_them(interfaces: &[Interface]) -> impl Iterator<Item = &Interface> {
    let mut sorted: Vec<&Interface> = interfaces.iter().collect();
    sorted.sort_by_key(|one| (!one.given, one.index));
    sorted.into_iter()
}

/// By which number this namespace knows the host's; none if no interface here has anything to do with it.
fn host_nsid(rtnetlink: &mut Rtnetlink, host: &Netns) -> Result<Option<i32>, NetnsError> {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(host.as_fd().as_raw_fd() as u32));
    let answers = rtnetlink
        .get(RouteNetlinkMessage::GetNsId(message))
        .map_err(refused("asking for the number of the host's network namespace"))?;
    let ids = answers.iter().flat_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(message) => message.attributes.as_slice(),
        _ => &[],
    });
    Ok(ids.into_iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) if *id >= 0 => Some(*id),
        _ => None,
    }))
}

fn interface(link: LinkMessage, host: Option<i32>) -> Interface {
    let mut found = Interface {
        index: link.header.index,
        name: String::new(),
        kind: String::new(),
        mtu: 0,
        loopback: link.header.flags.contains(LinkFlags::Loopback),
        up: link.header.flags.contains(LinkFlags::Up),
        host_peer: None,
        given: false,
        gso_max_segs: 0,
    };
    let mut peer = None;
    let mut peer_netns = None;
    let mut is_device = false;
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Mtu(mtu) => found.mtu = mtu,
            LinkAttribute::GsoMaxSegs(segments) => found.gso_max_segs = segments,
            LinkAttribute::Link(index) => peer = Some(index),
            LinkAttribute::LinkNetNsId(id) => peer_netns = Some(id),
            LinkAttribute::ParentDevName(_) => is_device = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        found.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    // Of other kinds IFLA_LINK is the interface below, which many pods share.
    let is_wire = InfoKind::Veth.to_string() == found.kind;
    let is_of_host = peer_netns.is_some() && peer_netns == host;
    if is_wire && is_of_host {
        found.host_peer = peer;
    }
    found.given = is_of_host || is_device && found.kind.is_empty();
    found
}
