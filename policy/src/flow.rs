//! What is judged.

use std::fmt;
use std::net::IpAddr;

use l7egg_ebpf_common::abi::{DNS_PORT, Direction, protocol};

/// The first packet of a connection or flow, as a pod sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IP protocol number, as in the packet.
    pub protocol: u8,
    /// The other side.
    pub address: IpAddr,
    /// The other side's port; of no meaning for protocols without ports.
    pub port: u16,
    /// Which side opened it.
    pub direction: Direction,
}

impl Flow {
    /// The flow as rules see it: an IPv4-mapped address as IPv4, ICMPv6 as ICMP, and port 0 where the
    /// protocol has no ports.
    pub fn normalised(self) -> Flow {
        let protocol = if self.protocol == protocol::ICMPV6 { protocol::ICMP } else { self.protocol };
        let has_ports = matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        Flow {
            protocol,
            address: self.address.to_canonical(),
            port: if has_ports { self.port } else { 0 },
            direction: self.direction,
        }
    }

    /// Whether this is a question to a DNS server, if one is at the address.
    pub(crate) fn is_dns(&self) -> bool {
        matches!(self.protocol, protocol::TCP | protocol::UDP) && self.port == DNS_PORT
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, has_ports) = match self.protocol {
            protocol::TCP => ("TCP", true),
            protocol::UDP => ("UDP", true),
            protocol::SCTP => ("SCTP", true),
            protocol::ICMP => ("ICMP", false),
            protocol::ICMPV6 => ("ICMPv6", false),
            number => return write!(f, "IP protocol {number} to {}", self.address),
        };
        if has_ports {
            write!(f, "{name} to {}", std::net::SocketAddr::new(self.address, self.port))
        } else {
            write!(f, "{name} to {}", self.address)
        }
    }
}
