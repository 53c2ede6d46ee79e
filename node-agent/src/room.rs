//! How much of the maps that all policies are in one namespace may fill, so that no namespace fills them for all others. As with
//! what is learned ([`l7egg_ebpf_common::share`]), the bound follows what is free.

use std::collections::{BTreeMap, BTreeSet};

use l7egg_ebpf_common::abi::{CIDRS_MAX, PATTERNS_MAX, PORTS_MAX, STATES_MAX};
use l7egg_ebpf_common::share::TIMES_FREE;
use l7egg_policy::CompiledPolicy;

use crate::datapath::{DatapathError, Digest};

/// The maps, with their entries.
const MAPS: [(&str, u32); 4] =
    [("STATES", STATES_MAX), ("PATTERNS", PATTERNS_MAX), ("CIDRS", CIDRS_MAX), ("PORTS", PORTS_MAX)];

/// Entries of a policy in each of [`MAPS`].
type Size = [u64; MAPS.len()];

/// The policies in force, and whose they are.
#[derive(Debug, Default)]
pub struct Room {
    pods: BTreeMap<String, Tenant>,
}

/// A pod with its policies: one, or, if it is divided, those of its containers too.
#[derive(Debug, PartialEq, Eq)]
struct Tenant {
    namespace: String,
    policies: BTreeMap<Digest, Size>,
}

impl Room {
    /// These are in force for a pod from now on, and what was is not. What the cluster's Eggs alone say is of no namespace, nor is what
    /// is in force for nodes.
    pub fn take<'a>(
        &mut self,
        uid: &str,
        namespace: &str,
        policies: impl Iterator<Item = &'a CompiledPolicy>,
    ) {
        let policies = policies.map(|policy| (policy.digest, size(policy))).collect();
        self.pods.insert(uid.to_owned(), Tenant { namespace: namespace.to_owned(), policies });
    }

    /// Forgets pods that have nothing in force.
    pub fn retain(&mut self, has_policy: impl Fn(&str) -> bool) {
        self.pods.retain(|uid, _| has_policy(uid));
    }

    /// Whether these may come into force for a pod of the namespace.
    ///
    /// # Errors
    /// [`DatapathError::ShareReached`], if they would make the namespace's own policies too many for what is left to the others.
    pub fn check<'a>(
        &self,
        namespace: &str,
        policies: impl Iterator<Item = &'a CompiledPolicy>,
    ) -> Result<(), DatapathError> {
        let mut all = BTreeMap::new();
        let mut own = BTreeMap::new();
        let mut clusters = BTreeSet::new();
        for tenant in self.pods.values() {
            let policies = tenant.policies.iter().map(|(digest, size)| (*digest, *size));
            all.extend(policies.clone());
            if tenant.namespace == namespace {
                own.extend(policies);
            } else if tenant.namespace.is_empty() {
                clusters.extend(tenant.policies.keys().copied());
            }
        }
        let before = all.len();
        for policy in policies {
            all.insert(policy.digest, size(policy));
            own.insert(policy.digest, size(policy));
        }
        if namespace.is_empty() || all.len() == before {
            return Ok(());
        }
        // What another namespace has as well counts for each: two of one tenant's would else have it count for none.
        let own = sum(own.iter().filter(|(digest, _)| !clusters.contains(*digest)).map(|(_, size)| size));
        let all = sum(all.values());
        match (0..MAPS.len()).find(|map| !is_within(own[*map], all[*map], MAPS[*map].1)) {
            None => Ok(()),
            Some(map) => Err(DatapathError::ShareReached {
                map: MAPS[map].0,
                entries: MAPS[map].1,
                namespace: namespace.to_owned(),
            }),
        }
    }
}

fn size(policy: &CompiledPolicy) -> Size {
    let searched = &policy.searched;
    let (states, names) =
        (policy.automaton.len() + searched.automaton.len(), policy.names.len() + searched.names.len());
    [states, names, policy.cidrs.len(), policy.ports.len()].map(|count| count as u64)
}

fn sum<'a>(sizes: impl Iterator<Item = &'a Size>) -> Size {
    sizes.fold(Size::default(), |sum, size| std::array::from_fn(|map| sum[map] + size[map]))
}

/// A map that is full by what others have says so itself; then it is not a matter of shares.
fn is_within(own: u64, all: u64, entries: u32) -> bool {
    let free = u64::from(entries).saturating_sub(all);
    own <= TIMES_FREE * free || own == 0
}

#[cfg(test)]
mod tests {
    use l7egg_crds::PolicySpec;
    use l7egg_policy::{Network, ResolvConf, Source, compile};

    use super::*;

    /// A policy of so many networks.
    fn policy(number: u8, count: u32) -> CompiledPolicy {
        let spec: PolicySpec = serde_json::from_value(serde_json::json!({
            "egress": [{"to": [{"cidr": "10.0.0.0/32"}]}]
        }))
        .unwrap();
        let source = Source { name: "Egg a/b".into(), spec: &spec };
        let mut policy = compile(&[source], &ResolvConf::default()).unwrap();
        let (network, masks) = policy.cidrs.iter().next().map(|(network, masks)| (*network, *masks)).unwrap();
        let networks = (0..count).map(|it| (Network { address: u128::from(it), ..network }, masks));
        policy.cidrs = networks.collect();
        policy.digest = [number; 32];
        policy
    }

    fn may(room: &Room, namespace: &str, policy: &CompiledPolicy) -> bool {
        room.check(namespace, std::iter::once(policy)).is_ok()
    }

    #[test]
    fn one_namespace_leaves_room_for_another() {
        let mut room = Room::default();
        let big: Vec<_> = (0..3).map(|number| policy(number, 100_000)).collect();
        for (pod, policy) in ["a", "b"].into_iter().zip(&big) {
            assert!(may(&room, "greedy", policy), "{pod}");
            room.take(pod, "greedy", std::iter::once(policy));
        }
        let error = room.check("greedy", std::iter::once(&big[2])).unwrap_err();
        assert_eq!(error.reason(), "ShareReached");
        assert!(
            error.to_string().contains("namespace greedy") && error.to_string().contains("CIDRS"),
            "{error}"
        );
        assert!(!may(&room, "greedy", &policy(3, 20_000)));
        assert!(may(&room, "other", &policy(4, 40_000)), "others have what is left");

        room.retain(|uid| uid != "a");
        assert!(may(&room, "greedy", &big[2]));
    }

    #[test]
    fn what_the_cluster_says_is_nobodys_and_what_is_there_needs_no_room() {
        let mut room = Room::default();
        let clusters = policy(0, 210_000);
        room.take("a", "", std::iter::once(&clusters));
        room.take("b", "one", std::iter::once(&clusters));
        assert!(may(&room, "three", &clusters));
        assert!(may(&room, "one", &policy(1, 10_000)));
        room.take("", "", std::iter::once(&policy(2, 50_000)));
        assert!(may(&room, "", &policy(3, 60_000)), "the node's own is not a namespace's");
    }

    #[test]
    fn two_namespaces_of_one_tenant_have_no_more_room_than_one() {
        let mut room = Room::default();
        let same: Vec<_> = (0..3).map(|number| policy(number, 100_000)).collect();
        for (number, policy) in same.iter().enumerate() {
            let fits = number < 2;
            for (pod, namespace) in [("a", "one"), ("b", "two")] {
                let may = may(&room, namespace, policy);
                assert_eq!(may, fits, "{number} in {namespace}");
                if may {
                    room.take(&format!("{pod}{number}"), namespace, std::iter::once(policy));
                }
            }
        }
    }

    #[test]
    fn who_has_nothing_of_a_full_map_needs_nothing_of_it() {
        let mut room = Room::default();
        room.take("a", "one", std::iter::once(&policy(0, CIDRS_MAX)));
        assert!(may(&room, "two", &policy(1, 0)));
    }
}
