//! What a network namespace is called by, and by what the kernel programs know it.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::NetnsError;
use super::error::refused;
use super::rtnetlink::Rtnetlink;

/// `LOOPBACK_IFINDEX` of include/net/flow.h: the same in every network namespace.
const LOOPBACK: u32 = 1;

/// The addresses of the namespace that the calling thread is in, but those of loopback and of the link. Others that are on the loopback
/// interface come last: there are programs that put hundreds there.
///
/// # Errors
/// The kernel does not tell.
pub fn addresses() -> Result<Vec<IpAddr>, NetnsError> {
    let answers = Rtnetlink::open()
        .and_then(|mut rtnetlink| rtnetlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())))
        .map_err(refused("listing addresses"))?;
    let addresses = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => {
            Some((message.header.index == LOOPBACK, own(&message.attributes)?))
        }
        _ => None,
    });
    let mut addresses: Vec<_> = addresses.filter(|(_, address)| !is_of_link(address)).collect();
    addresses.sort_by_key(|(is_loopback, _)| *is_loopback);
    Ok(addresses.into_iter().map(|(_, address)| address).collect())
}

/// Its cookie (`SO_NETNS_COOKIE`, Linux 5.14): unlike an inode number it is not used twice.
///
/// # Errors
/// The kernel does not tell.
pub fn cookie() -> Result<u64, NetnsError> {
    let asking = || refused("asking for the cookie of a network namespace");
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|error| asking()(error.into()))?;
    let (mut cookie, mut len) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the value is as long as said.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(asking()(io::Error::last_os_error())) }
}

/// Of a point-to-point interface the local one, not its peer's.
fn own(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| attributes.iter().find_map(wanted);
    find(|attribute| if let AddressAttribute::Local(address) = attribute { Some(*address) } else { None })
        .or_else(|| {
            find(
                |attribute| {
                    if let AddressAttribute::Address(address) = attribute { Some(*address) } else { None }
                },
            )
        })
}

fn is_of_link(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}
