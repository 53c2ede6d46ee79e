//! Pods some of whose Eggs are for certain containers: what counts for which.

use std::{collections::BTreeMap, sync::Arc};

use l7egg_crds::{Dns, Mode, PolicySpec};
use l7egg_policy::{CompiledPolicy, counts_for};

use crate::{
    cgroup::Container,
    datapath::{ContainerPolicy, Digest, EnforcedContainer, EnforcedPod, Wanted},
    desired::{DesiredPod, Failure},
    policies::PolicySource,
};

/// Revisions from here on are of policies that no Egg wrote.
const OWN_REVISIONS: u64 = u64::MAX - 8;

/// The policies of a pod's containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// Of those that some Egg names.
    named: BTreeMap<String, Arc<CompiledPolicy>>,
    /// Of all others; none if these are free.
    others: Option<Arc<CompiledPolicy>>,
}

impl Division {
    /// The policies of a pod's containers; nothing if its Eggs are for all of them. `compile` makes one of some Eggs.
    ///
    /// # Errors
    /// One of them cannot be compiled.
    pub fn new<'a>(
        sources: &[PolicySource<'a>],
        mut compile: impl FnMut(&[PolicySource<'a>]) -> Result<Arc<CompiledPolicy>, Failure>,
    ) -> Result<Option<Self>, Failure> {
        let names: std::collections::BTreeSet<&str> =
            sources.iter().flat_map(|source| &source.spec.containers).map(String::as_str).collect();
        if names.is_empty() {
            return Ok(None);
        }
        let mut named = BTreeMap::new();
        for name in names {
            let own: Vec<_> =
                sources.iter().filter(|source| counts_for(source.spec, name)).cloned().collect();
            named.insert(name.to_owned(), compile(&own)?);
        }
        let rest: Vec<_> =
            sources.iter().filter(|source| source.spec.containers.is_empty()).cloned().collect();
        let others = if rest.is_empty() { None } else { Some(compile(&rest)?) };
        Ok(Some(Self { named, others }))
    }

    /// What counts for a container; nothing if it is free.
    #[must_use]
    pub fn policy_of(&self, container: &str) -> Option<&Arc<CompiledPolicy>> {
        self.named.get(container).or(self.others.as_ref())
    }

    /// All of them.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        self.named.values().chain(&self.others)
    }

    /// What the kernel is to be told of the containers that are there. Those that have something in force keep it if `is_settled`
    /// is false: some Egg cannot be enforced, and they have what was before.
    #[must_use]
    pub fn wanted(
        &self,
        containers: &BTreeMap<u64, Container>,
        now: Option<&EnforcedPod>,
        is_settled: bool,
    ) -> Vec<ContainerPolicy> {
        let has = |cgroup: &u64| {
            now.and_then(|now| now.containers.as_ref()).is_some_and(|now| now.contains_key(cgroup))
        };
        let one = |(cgroup, container): (&u64, &Container)| {
            let name = container.name.clone()?;
            let wanted = match self.policy_of(&name) {
                _ if !is_settled && has(cgroup) => Wanted::AsBefore,
                Some(policy) => Wanted::Policy(Arc::clone(policy)),
                None => Wanted::Free,
            };
            Some(ContainerPolicy { cgroup: *cgroup, name, wanted })
        };
        containers.iter().filter_map(one).collect()
    }
}

/// Whether a pod, whose policy is the wanted one, is divided as it should be. `is_settled` as above.
#[must_use]
pub fn is_as_wanted(
    pod: &DesiredPod,
    containers: &BTreeMap<u64, Container>,
    now: &EnforcedPod,
    is_settled: bool,
) -> bool {
    match (&pod.division, &now.containers) {
        (None, None) => true,
        (Some(division), Some(known)) => {
            let wanted = division.wanted(containers, Some(now), is_settled);
            wanted.len() == known.len()
                && wanted.iter().all(|one| known.get(&one.cgroup).is_some_and(|known| is_same(one, known)))
        }
        _ => false,
    }
}

fn is_same(wanted: &ContainerPolicy, now: &EnforcedContainer) -> bool {
    let digest: Option<Digest> = match &wanted.wanted {
        Wanted::AsBefore => return true,
        Wanted::Free => None,
        Wanted::Policy(policy) => Some(policy.digest),
    };
    now.name == wanted.name && now.policy == digest
}

/// What belongs to none of a divided pod's containers may do, with a revision of its own: nothing, or everything if no Egg is
/// enforced. It asks for no name that any Egg might refuse.
#[must_use]
pub fn rest(sources: &[PolicySource<'_>]) -> (u64, PolicySpec) {
    let mut specs = sources.iter().map(|source| source.spec);
    let mode = specs.clone().map(|spec| spec.mode).min().unwrap_or_default();
    let refuse_unmatched = mode == Mode::Enforce
        && specs.any(|spec| {
            spec.mode == Mode::Enforce && spec.dns.as_ref().is_some_and(|dns| dns.refuse_unmatched)
        });
    let dns = refuse_unmatched.then(|| Dns { refuse_unmatched, ..Dns::default() });
    let revision = OWN_REVISIONS + 2 * u64::from(mode == Mode::Audit) + u64::from(refuse_unmatched);
    (revision, PolicySpec { mode, dns, ..PolicySpec::default() })
}
