//! How the kernel reads a compiled policy, in user space.

use std::collections::BTreeMap;

use l7egg_ebpf_common::abi::{Direction, Masks, NameMasks};
use l7egg_ebpf_common::automaton::{self, State};
use l7egg_ebpf_common::judge::combine;

use crate::network::to_number;
use crate::{CompiledPolicy, DomainName, Flow, Network, PortPrefix, Verdict};

/// The verdict of a compiled policy on a flow to an address that the pod learned by `names`.
pub fn lookup_compiled(policy: &CompiledPolicy, names: &[DomainName], flow: Flow) -> Verdict {
    let flow = flow.normalised();
    let address = to_number(flow.address);
    let free = flow.address.is_loopback()
        || flow.direction == Direction::Ingress
        || flow.is_dns() && policy.resolvers.contains(&address);
    if free {
        return Verdict::Allow;
    }
    let of = |name| name_masks(&policy.names, &policy.automaton, name);
    let masks = names.iter().fold(cidr_masks(policy, address), |masks, name| masks.union(of(name)));
    combine(masks, port_groups(policy, flow.protocol, flow.port), policy.enforcement)
}

/// The verdict of a compiled policy on a query for a name to the pod's own DNS servers.
pub fn lookup_query(policy: &CompiledPolicy, name: &DomainName) -> Verdict {
    if !policy.dns.refuse_unmatched || name_masks(&policy.names, &policy.automaton, name).allow != 0 {
        return Verdict::Allow;
    }
    let wire = name.wire();
    let mut at = 0;
    while at < wire.len() {
        let is_search = DomainName::from_wire(&wire[at..])
            .and_then(|suffix| policy.names.get(&suffix))
            .is_some_and(|entry| entry.search != 0);
        let may_be_searched = |name: DomainName| {
            let by_itself = name_masks(&policy.names, &policy.automaton, &name);
            let searched = name_masks(&policy.searched.names, &policy.searched.automaton, &name);
            by_itself.union(searched).allow != 0
        };
        if is_search && DomainName::from_wire(&wire[..at]).is_some_and(may_be_searched) {
            return Verdict::Allow;
        }
        at += 1 + usize::from(wire[at]);
    }
    Verdict::Deny
}

/// What the policy says about one name: its own entry, the star entries of every suffix, and the automaton.
fn name_masks(names: &BTreeMap<DomainName, NameMasks>, automaton: &[State], name: &DomainName) -> Masks {
    if !name.is_host() {
        return Masks::NONE;
    }
    let mut masks = automaton::walk(automaton, name.wire());
    let (mut rest, mut labels) = (name.wire(), 0);
    while !rest.is_empty() {
        if let Some(entry) = DomainName::from_wire(rest).and_then(|suffix| names.get(&suffix)) {
            masks = masks.union(match labels {
                0 => entry.exact,
                1 => entry.one_label.union(entry.any_labels),
                _ => entry.any_labels,
            });
        }
        rest = &rest[1 + usize::from(rest[0])..];
        labels += 1;
    }
    masks
}

/// The longest prefix that holds the address.
fn cidr_masks(policy: &CompiledPolicy, address: u128) -> Masks {
    (0..=128u8)
        .rev()
        .find_map(|length| policy.cidrs.get(&Network::around(address, length)))
        .copied()
        .unwrap_or(Masks::NONE)
}

/// The longest prefix that holds protocol and port.
fn port_groups(policy: &CompiledPolicy, protocol: u8, port: u16) -> u64 {
    (0..=24u8)
        .rev()
        .find_map(|length| {
            let bits = u32::from(protocol) << 24 | u32::from(port) << 8;
            let bits = bits & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            let prefix = PortPrefix { protocol: (bits >> 24) as u8, port: (bits >> 8) as u16, length };
            policy.ports.get(&prefix).copied()
        })
        .unwrap_or(0)
}
