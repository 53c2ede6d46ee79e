//! The digest of a compiled policy.

use sha2::{Digest, Sha256};

use super::CompiledPolicy;
use crate::DnsSettings;

/// SHA-256 over every entry in order, each part behind its count. The port groups are in the other parts.
pub(super) fn of(policy: &CompiledPolicy) -> [u8; 32] {
    let mut hash = Sha256::new();
    let count = |hash: &mut Sha256, count: usize| hash.update((count as u64).to_be_bytes());
    count(&mut hash, policy.names.len());
    for (name, masks) in &policy.names {
        count(&mut hash, name.wire().len());
        hash.update(name.wire());
        for masks in [masks.exact, masks.one_label, masks.any_labels] {
            hash.update(masks.allow.to_be_bytes());
            hash.update(masks.deny.to_be_bytes());
        }
        hash.update(masks.search.to_be_bytes());
    }
    count(&mut hash, policy.automaton.len());
    for state in &policy.automaton {
        hash.update(state.masks.allow.to_be_bytes());
        hash.update(state.masks.deny.to_be_bytes());
        for next in state.next {
            hash.update(next.to_be_bytes());
        }
    }
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
    hash.finalize().into()
}
