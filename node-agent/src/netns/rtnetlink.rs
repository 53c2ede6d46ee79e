//! rtnetlink(7) requests and their answers.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::Netlink;

/// A socket in the network namespace of the thread that made it.
pub struct Rtnetlink(Netlink);

impl Rtnetlink {
    /// A socket in the present namespace.
    pub fn open() -> io::Result<Self> {
        Netlink::open(NETLINK_ROUTE).map(Self)
    }

    /// Asks for a change; `flags` beside REQUEST and ACK.
    pub fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.0.request(message, flags | NLM_F_ACK).map(|_| ())
    }

    /// Asks for one thing.
    pub fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.0.request(message, NLM_F_ACK)
    }

    /// Asks for all of a kind.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.0.request(message, NLM_F_DUMP)
    }
}
