//! Policies in the maps: written whole under a new id before a pod is switched to it, removed when no pod
//! uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::lpm_trie::Key;
use l7egg_crds::RefusalCode;
use l7egg_ebpf_common::abi::{
    Address, CidrData, NameMasks, NameVerdictKey, PatternKey, PolicySettings, PortData, REFUSES, ResolverKey,
    SEARCHED, SETTINGS, UNSET,
};
use l7egg_ebpf_common::automaton::State;
use l7egg_ebpf_common::name;
use l7egg_policy::{CompiledPolicy, DnsSettings, DomainName};

use super::error::{insertion, kernel};
use super::matchers;
use super::programs::Maps;
use super::sys;
use crate::datapath::{DatapathError, Digest};

/// Key of `POLICIES` that holds the last id given: ids are never used twice, because connections remember
/// under which one they were judged.
const LAST_ID: u32 = 0;

/// What is installed.
pub struct Policies {
    by_digest: BTreeMap<Digest, u32>,
    /// What each id was written from, where this agent wrote it: its entries are removed by name.
    sources: BTreeMap<u32, Arc<CompiledPolicy>>,
    last_id: u32,
    hash_key: [u32; 2],
}

impl Policies {
    /// Reads what an earlier agent installed.
    pub fn open(maps: &Maps, hash_key: [u32; 2]) -> Result<Self, DatapathError> {
        let mut by_digest = BTreeMap::new();
        let mut last_id = 0;
        for entry in maps.policies.iter() {
            let (id, digest) = entry.map_err(kernel("reading map POLICIES"))?;
            if id == LAST_ID {
                last_id = last_id.max(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]));
            } else {
                by_digest.insert(digest, id);
                last_id = last_id.max(id);
            }
        }
        Ok(Self { by_digest, sources: BTreeMap::new(), last_id, hash_key })
    }

    /// The digest of an id, if it is installed.
    pub fn digest(&self, id: u32) -> Option<Digest> {
        self.by_digest.iter().find(|(_, known)| **known == id).map(|(digest, _)| *digest)
    }

    /// The id of a policy, which is written to the maps unless it is there. Where they are full, what is not in use, as policies that
    /// were replaced since the last collection, makes room.
    pub fn install(
        &mut self,
        maps: &mut Maps,
        policy: &CompiledPolicy,
        used: &BTreeSet<u32>,
    ) -> Result<u32, DatapathError> {
        match self.try_to_install(maps, policy) {
            Err(DatapathError::MapFull { .. }) if self.has_unused(used) => {
                sys::wait_for_programs();
                self.retain(maps, used)?;
                self.try_to_install(maps, policy)
            }
            result => result,
        }
    }

    fn try_to_install(&mut self, maps: &mut Maps, policy: &CompiledPolicy) -> Result<u32, DatapathError> {
        if let Some(id) = self.by_digest.get(&policy.digest) {
            return Ok(*id);
        }
        let id = self.next_id(maps)?;
        let written = write(maps, id, policy, &self.hash_key).and_then(|()| {
            maps.policies.insert(id, policy.digest, 0).map_err(|error| insertion("POLICIES", error))
        });
        if let Err(error) = written {
            // Half a policy is none: nobody has been switched to it.
            remove_entries(maps, id, policy, &self.hash_key);
            return Err(error);
        }
        self.by_digest.insert(policy.digest, id);
        self.sources.insert(id, Arc::new(policy.clone()));
        Ok(id)
    }

    /// Whether there are policies whose id is not in use.
    pub fn has_unused(&self, used: &BTreeSet<u32>) -> bool {
        self.by_digest.values().any(|id| !used.contains(id))
    }

    /// Removes every policy whose id is not in use.
    pub fn retain(&mut self, maps: &mut Maps, used: &BTreeSet<u32>) -> Result<(), DatapathError> {
        let unused: Vec<(Digest, u32)> = self
            .by_digest
            .iter()
            .filter(|(_, id)| !used.contains(id))
            .map(|(digest, id)| (*digest, *id))
            .collect();
        let mut unknown = BTreeSet::new();
        for (digest, id) in unused {
            match self.sources.remove(&id) {
                Some(policy) => remove_entries(maps, id, &policy, &self.hash_key),
                None => {
                    unknown.insert(id);
                }
            }
            maps.policies.remove(&id).map_err(kernel(format!("forgetting policy {id}")))?;
            self.by_digest.remove(&digest);
        }
        if !unknown.is_empty() {
            let known: BTreeSet<u32> = self.by_digest.values().copied().collect();
            sweep(maps, &known)?;
        }
        Ok(())
    }

    fn next_id(&mut self, maps: &mut Maps) -> Result<u32, DatapathError> {
        // 0 means "no policy"; after two thousand million changes the first ids are long gone.
        let id = self.last_id.checked_add(1).filter(|id| *id < SEARCHED).unwrap_or(1);
        let mut value = [0; 32];
        value[..4].copy_from_slice(&id.to_le_bytes());
        maps.policies.insert(LAST_ID, value, 0).map_err(|error| insertion("POLICIES", error))?;
        self.last_id = id;
        Ok(id)
    }
}

/// What of a policy is in the state of its subjects.
pub fn flags(policy: &CompiledPolicy) -> u32 {
    let settings = if policy.dns == DnsSettings::default() { 0 } else { SETTINGS };
    let refuses = if policy.dns.refuse_unmatched { REFUSES } else { 0 };
    policy.enforcement.flags() | settings | refuses
}

/// Removes the entries of every id that is not known: what an agent left that was killed while it wrote, or
/// that another one wrote.
pub fn sweep(maps: &mut Maps, known: &BTreeSet<u32>) -> Result<(), DatapathError> {
    macro_rules! sweep {
        ($map:ident, $name:literal, $id:expr) => {
            let keys: Result<Vec<_>, _> = maps.$map.keys().collect();
            for key in keys.map_err(kernel(concat!("reading map ", $name)))? {
                if !known.contains(&$id(&key)) {
                    let _ = maps.$map.remove(&key);
                }
            }
        };
    }
    sweep!(settings, "SETTINGS", |policy: &u32| *policy);
    sweep!(patterns, "PATTERNS", |key: &PatternKey| key.policy & !SEARCHED);
    sweep!(matchers, "MATCHERS", |policy: &u32| *policy & !SEARCHED);
    sweep!(cidrs, "CIDRS", |key: &Key<CidrData>| u32::from_be_bytes(key.data().policy));
    sweep!(ports, "PORTS", |key: &Key<PortData>| u32::from_be_bytes(key.data().policy));
    sweep!(resolvers, "RESOLVERS", |key: &ResolverKey| key.policy);
    sweep!(name_verdicts, "NAME_VERDICTS", |key: &NameVerdictKey| key.policy);
    Ok(())
}

fn write(maps: &mut Maps, id: u32, policy: &CompiledPolicy, key: &[u32; 2]) -> Result<(), DatapathError> {
    if policy.dns != DnsSettings::default() {
        maps.settings.insert(id, settings(&policy.dns), 0).map_err(|error| insertion("SETTINGS", error))?;
    }
    for (id, names, automaton) in names_of(id, policy) {
        for (name, masks) in names {
            let key = pattern_key(id, name.wire(), key);
            maps.patterns.insert(key, masks, 0).map_err(|error| insertion("PATTERNS", error))?;
        }
        matchers::write(maps, id, names, automaton)?;
    }
    for (network, masks) in &policy.cidrs {
        let key = cidr_key(id, network.address, network.length);
        maps.cidrs.insert(&key, masks, 0).map_err(|error| insertion("CIDRS", error))?;
    }
    for (prefix, groups) in &policy.ports {
        let key = port_key(id, prefix.protocol, prefix.port, prefix.length);
        maps.ports.insert(&key, groups, 0).map_err(|error| insertion("PORTS", error))?;
    }
    for resolver in &policy.resolvers {
        let key = ResolverKey { policy: id, address: Address::from_bytes(resolver.to_be_bytes()) };
        maps.resolvers.insert(key, 1, 0).map_err(|error| insertion("RESOLVERS", error))?;
    }
    Ok(())
}

/// Under which id which names and which automaton are.
fn names_of(id: u32, policy: &CompiledPolicy) -> [(u32, &BTreeMap<DomainName, NameMasks>, &[State]); 2] {
    let searched = &policy.searched;
    [
        (id, &policy.names, policy.automaton.as_slice()),
        (id | SEARCHED, &searched.names, searched.automaton.as_slice()),
    ]
}

/// Errors are of entries that are not there; what may stay behind is swept at the next start.
fn remove_entries(maps: &mut Maps, id: u32, policy: &CompiledPolicy, key: &[u32; 2]) {
    let _ = maps.settings.remove(&id);
    for (id, names, _) in names_of(id, policy) {
        for name in names.keys() {
            let _ = maps.patterns.remove(&pattern_key(id, name.wire(), key));
        }
        let _ = maps.matchers.remove(&id);
    }
    for network in policy.cidrs.keys() {
        let _ = maps.cidrs.remove(&cidr_key(id, network.address, network.length));
    }
    for prefix in policy.ports.keys() {
        let _ = maps.ports.remove(&port_key(id, prefix.protocol, prefix.port, prefix.length));
    }
    for resolver in &policy.resolvers {
        let _ = maps
            .resolvers
            .remove(&ResolverKey { policy: id, address: Address::from_bytes(resolver.to_be_bytes()) });
    }
}

fn settings(dns: &DnsSettings) -> PolicySettings {
    let ns = |time: Option<Duration>| time.map_or(UNSET, |time| time.as_nanos() as u64);
    PolicySettings {
        min_ttl_ns: ns(dns.min_ttl),
        max_ttl_ns: ns(dns.max_ttl),
        ttl_grace_ns: ns(dns.ttl_grace),
        refusal: if dns.refuse_unmatched { rcode(dns.refusal_code) } else { 0 },
        reserved: 0,
    }
}

/// RFC 1035 §4.1.1.
fn rcode(code: RefusalCode) -> u32 {
    match code {
        RefusalCode::Refused => 5,
        RefusalCode::NxDomain => 3,
    }
}

fn pattern_key(policy: u32, wire: &[u8], key: &[u32; 2]) -> PatternKey {
    PatternKey { name: name::hash(wire, key), policy, reserved: 0 }
}

fn cidr_key(policy: u32, address: u128, length: u8) -> Key<CidrData> {
    Key::new(
        32 + u32::from(length),
        CidrData { policy: policy.to_be_bytes(), address: Address::from_bytes(address.to_be_bytes()) },
    )
}

fn port_key(policy: u32, protocol: u8, port: u16, length: u8) -> Key<PortData> {
    let data = PortData { policy: policy.to_be_bytes(), protocol, port: port.to_be_bytes(), reserved: 0 };
    Key::new(32 + u32::from(length), data)
}
