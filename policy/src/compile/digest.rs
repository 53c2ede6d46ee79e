//! The digest of a compiled policy.

use std::collections::BTreeMap;

use l7egg_ebpf_common::abi::NameMasks;
use l7egg_ebpf_common::automaton::State;
use sha2::{Digest, Sha256};

use super::CompiledPolicy;
use crate::{DnsSettings, DomainName};

/// SHA-256 over every entry in order, each part behind its count. The port groups are in the other parts.
pub(super) fn of(policy: &CompiledPolicy) -> [u8; 32] {
    let mut hash = Sha256::new();
    add_names(&mut hash, &policy.names, &policy.automaton);
    count(&mut hash, policy.cidrs.len());
    for (network, masks) in &policy.cidrs {
        hash.update(network.address.to_be_bytes());
        hash.update([network.length]);
        hash.update(masks.allow.to_be_bytes());
        hash.update(masks.deny.to_be_bytes());
    }
    count(&mut hash, policy.ports.len());
    for (ports, groups) in &policy.ports {
        hash.update([ports.protocol, ports.length]);
        hash.update(ports.port.to_be_bytes());
        hash.update(groups.to_be_bytes());
    }
    hash.update(policy.enforcement.flags().to_be_bytes());
    count(&mut hash, policy.resolvers.len());
    for resolver in &policy.resolvers {
        hash.update(resolver.to_be_bytes());
    }
    let DnsSettings { refuse_unmatched, refusal_code, min_ttl, max_ttl, ttl_grace } = policy.dns;
    hash.update([u8::from(refuse_unmatched), refusal_code as u8]);
    for time in [min_ttl, max_ttl, ttl_grace] {
        hash.update(time.map_or(u128::MAX, |time| time.as_nanos()).to_be_bytes());
    }
    // Most policies keep the digest that they had before there were such names.
    if !policy.searched.is_empty() {
        add_names(&mut hash, &policy.searched.names, &policy.searched.automaton);
    }
    hash.finalize().into()
}

fn count(hash: &mut Sha256, count: usize) {
    hash.update((count as u64).to_be_bytes());
}

fn add_names(hash: &mut Sha256, names: &BTreeMap<DomainName, NameMasks>, automaton: &[State]) {
    count(hash, names.len());
    for (name, masks) in names {
        count(hash, name.wire().len());
        hash.update(name.wire());
        for masks in [masks.exact, masks.one_label, masks.any_labels] {
            hash.update(masks.allow.to_be_bytes());
            hash.update(masks.deny.to_be_bytes());
        }
        hash.update(masks.search.to_be_bytes());
    }
    count(hash, automaton.len());
    for state in automaton {
        hash.update(state.masks.allow.to_be_bytes());
        hash.update(state.masks.deny.to_be_bytes());
        for next in state.next {
            hash.update(next.to_be_bytes());
        }
    }
}
