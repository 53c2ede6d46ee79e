//! Ports: from port groups to one table for longest-prefix match.

use std::collections::{BTreeMap, BTreeSet};

use crate::{PortRange, PortSet};

/// A protocol, or ports of it that share leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortPrefix {
    /// IP protocol number; 0 with length 0. ICMPv6 is looked up as ICMP.
    pub protocol: u8,
    /// The first port; the bits behind the prefix are zero. Protocols without ports are looked up as port 0.
    pub port: u16,
    /// Prefix length over protocol (8 bits) and port (16 bits): 0 is every protocol, 8 a whole protocol.
    pub length: u8,
}

/// At most `2 * 16` entries a range, and never more than one for each port.
pub(super) fn compile(groups: &[PortSet]) -> BTreeMap<PortPrefix, u64> {
    let mut entries = BTreeMap::new();
    let any = bits(groups, |set| *set == PortSet::Any);
    if any != 0 {
        entries.insert(PortPrefix { protocol: 0, port: 0, length: 0 }, any);
    }
    let protocols: BTreeSet<u8> =
        groups.iter().flat_map(PortSet::ranges).map(|range| range.protocol).collect();
    for protocol in protocols {
        let of = |range: &&PortRange| range.protocol == protocol;
        let whole = any | bits(groups, |set| set.ranges().iter().filter(of).any(|range| range.is_whole()));
        if whole != any {
            entries.insert(PortPrefix { protocol, port: 0, length: 8 }, whole);
        }
        for (first, last, groups) in segments(groups, protocol) {
            if groups | whole != whole {
                for (port, length) in prefixes(first, last) {
                    entries.insert(PortPrefix { protocol, port, length: 8 + length }, groups | whole);
                }
            }
        }
    }
    entries
}

fn bits(groups: &[PortSet], holds: impl Fn(&PortSet) -> bool) -> u64 {
    (0..).zip(groups).filter(|(_, set)| holds(set)).fold(0, |bits, (bit, _)| bits | 1 << bit)
}

/// The ports of a protocol cut where any range begins or ends; each piece with the groups that hold it.
fn segments(groups: &[PortSet], protocol: u8) -> Vec<(u16, u16, u64)> {
    // The ranges of one group neither overlap nor touch, so each end flips the group's bit.
    let mut flips = BTreeMap::<u32, u64>::new();
    for (bit, set) in (0..).zip(groups) {
        for range in set.ranges().iter().filter(|range| range.protocol == protocol) {
            *flips.entry(range.first.into()).or_default() ^= 1 << bit;
            *flips.entry(u32::from(range.last) + 1).or_default() ^= 1 << bit;
        }
    }
    let starts: Vec<(u32, u64)> = flips.into_iter().collect();
    let mut groups = 0;
    starts
        .windows(2)
        .filter_map(|pair| {
            groups ^= pair[0].1;
            // Below 65536: only the end of the last piece is not, and nothing starts there.
            (groups != 0).then_some((pair[0].0 as u16, (pair[1].0 - 1) as u16, groups))
        })
        .collect()
}

/// The fewest prefixes of 16 bits that make up `first..=last`.
fn prefixes(first: u16, last: u16) -> Vec<(u16, u8)> {
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    let mut prefixes = Vec::new();
    while at < end {
        let aligned = if at == 0 { 16 } else { at.trailing_zeros().min(16) };
        let fits = (end - at).ilog2();
        let size = aligned.min(fits);
        prefixes.push((at as u16, (16 - size) as u8));
        at += 1 << size;
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_prefixes() {
        assert_eq!(prefixes(443, 443), [(443, 16)]);
        assert_eq!(prefixes(0, 65535), [(0, 0)]);
        assert_eq!(prefixes(8000, 8100), [(8000, 10), (8064, 11), (8096, 14), (8100, 16)]);
        assert_eq!(prefixes(1, 65535).len(), 16);
        assert_eq!(prefixes(1, 65534).len(), 30);
    }
}
