//! Compiled policies, each compiled once however many pods have it.

use std::{collections::BTreeMap, sync::Arc};

use l7egg_crds::PolicySpec;
use l7egg_policy::{CompileError, CompiledPolicy, ResolvConf, Source, compile};

use crate::desired::Failure;

/// One Egg's part of a policy.
#[derive(Clone, Debug)]
pub struct PolicySource<'a> {
    /// Stands for `spec`: equal revisions, equal specs.
    pub revision: u64,
    /// Name of the Egg, for messages.
    pub name: String,
    /// What it says.
    pub spec: &'a PolicySpec,
}

/// What a policy is compiled from.
type Inputs = (Vec<u64>, ResolvConf);

/// Compiled policies by what they are compiled from.
#[derive(Debug, Default)]
pub struct PolicyCache {
    entries: BTreeMap<Inputs, Cached>,
}

#[derive(Debug)]
struct Cached {
    policy: Result<Arc<CompiledPolicy>, Failure>,
    used: bool,
}

impl PolicyCache {
    /// The policy of all sources together.
    pub fn compile(
        &mut self,
        sources: &[PolicySource<'_>],
        resolv_conf: &ResolvConf,
    ) -> Result<Arc<CompiledPolicy>, Failure> {
        let all = as_sources(sources);
        // Not by more: every namespace has its own search domains.
        let resolv_conf = resolv_conf.that_counts(&all);
        let inputs = (sources.iter().map(|source| source.revision).collect(), resolv_conf.clone());
        let cached = self
            .entries
            .entry(inputs)
            .or_insert_with(|| Cached { policy: compile_now(&all, &resolv_conf), used: true });
        cached.used = true;
        cached.policy.clone()
    }

    /// Drops what has not been asked for since the last call.
    pub fn forget_unused(&mut self) {
        self.entries.retain(|_, cached| std::mem::take(&mut cached.used));
    }
}

/// As the policy crate has them.
pub fn as_sources<'a>(sources: &'a [PolicySource<'_>]) -> Vec<Source<'a>> {
    sources.iter().map(|source| Source { name: source.name.clone(), spec: source.spec }).collect()
}

fn compile_now(sources: &[Source<'_>], resolv_conf: &ResolvConf) -> Result<Arc<CompiledPolicy>, Failure> {
    compile(sources, resolv_conf).map(Arc::new).map_err(|error| Failure {
        reason: match error {
            CompileError::Invalid { .. } => "PolicyInvalid",
            CompileError::PortLists { .. } | CompileError::Automaton { .. } => "PolicyTooLarge",
        },
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use l7egg_crds::Dns;
    use l7egg_policy::DomainName;

    use super::*;

    #[test]
    fn namespaces_share_a_policy_that_refuses_no_names() {
        let mut cache = PolicyCache::default();
        let of = |namespace: &str| ResolvConf {
            search: [DomainName::parse(&format!("{namespace}.svc.cluster.local")).unwrap()].into(),
            ..ResolvConf::default()
        };
        let mut spec = PolicySpec::default();
        for shares in [true, false] {
            spec.dns = Some(Dns { refuse_unmatched: !shares, ..Dns::default() });
            let source = PolicySource { revision: u64::from(shares), name: "Egg a/b".into(), spec: &spec };
            let policies =
                ["a", "b"].map(|it| cache.compile(std::slice::from_ref(&source), &of(it)).unwrap());
            assert_eq!(Arc::ptr_eq(&policies[0], &policies[1]), shares);
        }
    }

    #[test]
    fn compiles_once_and_forgets() {
        let mut cache = PolicyCache::default();
        let spec = PolicySpec::default();
        let source = |revision| PolicySource { revision, name: "Egg a/b".into(), spec: &spec };
        let none = ResolvConf::default();
        let first = cache.compile(&[source(1)], &none).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.compile(&[source(1)], &none).unwrap()));
        assert!(!Arc::ptr_eq(&first, &cache.compile(&[source(2)], &none).unwrap()));
        cache.forget_unused();
        let _ = cache.compile(&[source(2)], &none);
        cache.forget_unused();
        assert_eq!(cache.entries.len(), 1);
    }
}
