//! Compiled policies, each compiled once however many pods have it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

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

/// Reason of pods whose policy is compiled later, because others take long.
pub const POSTPONED: &str = "PolicyCompiling";
/// So long new policies are compiled in one go, and at least one. One takes a second at most, and nothing else is enforced meanwhile.
const AT_ONCE: Duration = Duration::from_millis(300);
/// For so many unfinished rounds what nobody asks for is kept: who had to be put off did not come to ask for all that it needs.
const KEPT_FOR: u32 = 30;

/// Compiled policies by what they are compiled from.
#[derive(Debug, Default)]
pub struct PolicyCache {
    entries: BTreeMap<Inputs, Cached>,
    until: Option<Instant>,
    /// Whose policies are asked for.
    pod: String,
    /// Whether there was no time for some of them.
    postponed: bool,
    /// The first pod of this round for which there was no time, and that of the round before.
    late: Option<String>,
    resume_at: Option<String>,
    /// Whether this round has compiled something.
    has_compiled: bool,
}

#[derive(Debug)]
struct Cached {
    policy: Result<Arc<CompiledPolicy>, Failure>,
    /// Rounds in which nobody has asked for it.
    idle: u32,
}

impl PolicyCache {
    /// Begins a round: from now on there is time for new ones.
    pub fn begin(&mut self) {
        self.until = Some(Instant::now() + AT_ONCE);
        self.has_compiled = false;
    }

    /// The pod that is to be the first of this round, so that each has its turn.
    #[must_use]
    pub fn resume_at(&self) -> Option<&str> {
        self.resume_at.as_deref()
    }

    /// What comes is asked for this pod.
    pub fn ask_for(&mut self, pod: &str) {
        pod.clone_into(&mut self.pod);
        self.postponed = false;
    }

    /// Whether there was no time for something that the pod asked for.
    #[must_use]
    pub fn is_postponing(&self) -> bool {
        self.postponed
    }

    /// Ends it: drops what was not asked for. True if there was no time for all, so that another round is due.
    pub fn end(&mut self) -> bool {
        self.resume_at = self.late.take();
        let most = if self.resume_at.is_some() { KEPT_FOR } else { 0 };
        self.entries.retain(|_, cached| {
            cached.idle += 1;
            cached.idle <= most + 1
        });
        self.resume_at.is_some()
    }

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
        if !self.entries.contains_key(&inputs) {
            if self.has_compiled && self.until.is_some_and(|until| Instant::now() > until) {
                self.postponed = true;
                self.late.get_or_insert_with(|| self.pod.clone());
                return Err(postponed());
            }
            self.has_compiled = true;
        }
        let cached = self
            .entries
            .entry(inputs)
            .or_insert_with(|| Cached { policy: compile_now(&all, &resolv_conf), idle: 0 });
        cached.idle = 0;
        cached.policy.clone()
    }
}

/// Why a policy is not there that has to wait for others.
pub fn postponed() -> Failure {
    let message = "the policies of this node's pods take long to compile, and this one comes after others";
    Failure { reason: POSTPONED, message: message.to_owned() }
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
        assert!(!cache.end());
        cache.begin();
        let _ = cache.compile(&[source(2)], &none);
        assert!(!cache.end());
        assert_eq!(cache.entries.len(), 1);
    }

    #[test]
    fn who_was_late_is_first_the_next_time() {
        let mut cache = PolicyCache::default();
        let (spec, none) = (PolicySpec::default(), ResolvConf::default());
        let source = |revision| PolicySource { revision, name: "Egg a/b".into(), spec: &spec };
        cache.begin();
        for (revision, pod) in [(1, "a"), (2, "b"), (3, "c")] {
            cache.ask_for(pod);
            assert_eq!(cache.compile(&[source(revision)], &none).is_ok(), pod == "a");
            assert_eq!(cache.is_postponing(), pod != "a");
            cache.until = Some(Instant::now() - AT_ONCE);
        }
        assert!(cache.end());
        assert_eq!(cache.resume_at(), Some("b"));
        cache.begin();
        assert!(!cache.end());
        assert_eq!(cache.resume_at(), None);
    }

    #[test]
    fn what_there_is_no_time_for_comes_in_the_next_round() {
        let mut cache = PolicyCache::default();
        let (spec, none) = (PolicySpec::default(), ResolvConf::default());
        let source = |revision| PolicySource { revision, name: "Egg a/b".into(), spec: &spec };
        cache.begin();
        cache.compile(&[source(1)], &none).unwrap();
        cache.until = Some(Instant::now() - AT_ONCE);
        assert_eq!(cache.compile(&[source(2)], &none).unwrap_err().reason, POSTPONED);
        assert!(cache.end());
        cache.begin();
        cache.compile(&[source(2)], &none).unwrap();
        assert_eq!(cache.entries.len(), 2, "what others still need is not compiled again");
        assert!(!cache.end());
    }
}
