//! Port lists in one canonical form.

use l7egg_crds::{Port, Protocol};

/// What a rule's `ports` say: everything, or ranges of ports of some protocols.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortSet {
    /// No list: every protocol, those without ports too.
    Any,
    /// Ranges in order, that neither overlap nor touch within a protocol.
    Ranges(Vec<PortRange>),
}

/// Ports `first` to `last` of one protocol. A whole protocol, and ICMP, is 0 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// IP protocol number.
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, included.
    pub last: u16,
}

/// Why a port entry means nothing: the field of it, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not 1 to 65535.
    #[error("{0} is no port: write 1 to 65535")]
    Port(i32),
    /// Not 1 to 65535.
    #[error("{0} is no port: write 1 to 65535")]
    EndPort(i32),
    /// `endPort` below `port`.
    #[error(
        "the range is upside down: endPort {end} is below port {port}; write port: {end}, endPort: {port}"
    )]
    UpsideDown {
        /// `port`.
        port: i32,
        /// `endPort`.
        end: i32,
    },
    /// `endPort` without `port`.
    #[error("endPort is the end of a range: write port, its start, too")]
    NoStart,
    /// ICMP with ports.
    #[error("ICMP has no ports: write {{protocol: ICMP}} alone")]
    Icmp,
}

impl PortError {
    /// The field of the entry that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            PortError::Port(_) | PortError::Icmp => "port",
            PortError::EndPort(_) | PortError::UpsideDown { .. } | PortError::NoStart => "endPort",
        }
    }
}

impl PortRange {
    /// Reads one entry of a rule's `ports`.
    ///
    /// # Errors
    /// [`PortError`] says what is wrong and what to write.
    pub fn parse(port: &Port) -> Result<Self, PortError> {
        let protocol = protocol_number(port.protocol);
        if port.protocol == Protocol::Icmp && (port.port.is_some() || port.end_port.is_some()) {
            return Err(PortError::Icmp);
        }
        let Some(first) = port.port else {
            return match port.end_port {
                Some(_) => Err(PortError::NoStart),
                None => Ok(PortRange { protocol, first: 0, last: u16::MAX }),
            };
        };
        let start = port_number(first).ok_or(PortError::Port(first))?;
        let last = port.end_port.unwrap_or(first);
        let end = port_number(last).ok_or(PortError::EndPort(last))?;
        if end < start {
            return Err(PortError::UpsideDown { port: first, end: last });
        }
        Ok(PortRange { protocol, first: start, last: end })
    }

    /// Whether these are all ports of the protocol.
    pub fn is_whole(self) -> bool {
        (self.first, self.last) == (0, u16::MAX)
    }
}

impl PortSet {
    /// The set of some ranges: sorted, overlapping and touching ones joined. No range at all is every port.
    pub fn new(mut ranges: Vec<PortRange>) -> Self {
        if ranges.is_empty() {
            return PortSet::Any;
        }
        ranges.sort_unstable();
        let mut joined: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last)
                    if last.protocol == range.protocol
                        && u32::from(range.first) <= u32::from(last.last) + 1 =>
                {
                    last.last = last.last.max(range.last);
                }
                _ => joined.push(range),
            }
        }
        PortSet::Ranges(joined)
    }

    /// The ranges; none for [`PortSet::Any`].
    pub fn ranges(&self) -> &[PortRange] {
        match self {
            PortSet::Any => &[],
            PortSet::Ranges(ranges) => ranges,
        }
    }
}

/// IP protocol number (IANA). ICMP is 1 for ICMPv6 as well: a rule means both.
pub fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
        Protocol::Icmp => 1,
    }
}

fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: Protocol, port: Option<i32>, end_port: Option<i32>) -> Port {
        Port { protocol, port, end_port }
    }

    fn range(protocol: u8, first: u16, last: u16) -> PortRange {
        PortRange { protocol, first, last }
    }

    #[test]
    fn entries() {
        assert_eq!(PortRange::parse(&port(Protocol::Tcp, Some(80), None)), Ok(range(6, 80, 80)));
        assert_eq!(PortRange::parse(&port(Protocol::Udp, Some(1), Some(9))), Ok(range(17, 1, 9)));
        assert!(PortRange::parse(&port(Protocol::Sctp, None, None)).unwrap().is_whole());
        for (entry, field, says) in [
            (port(Protocol::Tcp, Some(0), None), "port", "1 to 65535"),
            (port(Protocol::Tcp, Some(65536), None), "port", "1 to 65535"),
            (port(Protocol::Tcp, Some(1), Some(70000)), "endPort", "1 to 65535"),
            (port(Protocol::Tcp, Some(9), Some(8)), "endPort", "write port: 8, endPort: 9"),
            (port(Protocol::Tcp, None, Some(8)), "endPort", "write port"),
            (port(Protocol::Icmp, Some(8), None), "port", "{protocol: ICMP} alone"),
        ] {
            let error = PortRange::parse(&entry).expect_err(says);
            assert_eq!(error.field(), field);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn same_ports_are_equal_however_written() {
        let joined =
            PortSet::new(vec![range(6, 81, 90), range(17, 5, 5), range(6, 80, 80), range(6, 85, 100)]);
        assert_eq!(joined, PortSet::Ranges(vec![range(6, 80, 100), range(17, 5, 5)]));
        assert_eq!(PortSet::new(vec![]), PortSet::Any);
        assert_eq!(
            PortSet::new(vec![range(6, 1, 65535), range(6, 5, 7)]),
            PortSet::Ranges(vec![range(6, 1, 65535)])
        );
    }
}
