//! From assignments to what should be in force for every pod of the node.

mod fallback;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use l7egg_crds::{AssignedPod, EGRESS_BANDWIDTH_ANNOTATION, EgressLimit, PolicySpec};
use l7egg_policy::{CompiledPolicy, ResolvConf, name_some};

use crate::{
    annotated::AnnotatedPod,
    assignment::{AssignmentKey, egg_name, subject_name},
    division::{self, Division},
    explain::{ExplainedEgg, Explainer},
    inventory::{Entry, Inventory},
    policies::{PolicyCache, PolicySource, as_sources, postponed},
    shaping::{Cap, cap_of, cap_of_annotation, nest},
};

/// What should be in force.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Every pod that some assignment names, by uid.
    pub pods: BTreeMap<String, DesiredPod>,
    /// Whether a pod that is not in `pods` is one that no Egg selects. Not so before the first full list,
    /// or while some assignment does not even say which its pods are.
    pub knows_all_pods: bool,
    /// There was no time to compile all that is new: it is to be asked again.
    pub is_unfinished: bool,
    /// Pods that no assignment names, and that have a limit by their annotation, by uid. Not known at first.
    pub annotated: Option<BTreeMap<String, AnnotatedPod>>,
}

impl Desired {
    /// How fast a pod may send, if anything is known of it. Without [`Desired::annotated`], what it has stays.
    #[must_use]
    pub fn limits(&self, uid: &str) -> Option<&Limits> {
        let annotated = || self.annotated.as_ref()?.get(uid).map(|pod| &pod.limits);
        self.pods.get(uid).map(|pod| &pod.limits).or_else(annotated)
    }

    /// The limits of all pods that have some, by uid.
    pub fn all_limits(&self) -> impl Iterator<Item = (&String, &Limits)> {
        let of_eggs = self.pods.iter().map(|(uid, pod)| (uid, &pod.limits));
        let annotated = self.annotated.iter().flatten();
        let annotated = annotated.filter(|(uid, _)| !self.pods.contains_key(*uid));
        of_eggs.chain(annotated.map(|(uid, pod)| (uid, &pod.limits)))
    }
}

/// One pod.
#[derive(Clone, Debug)]
pub struct DesiredPod {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Its network is its node's.
    pub host_network: bool,
    /// Its author has given it DNS servers or search domains of its own: its policy is then like no other pod's.
    pub has_own_dns: bool,
    /// The assignments that name it.
    pub assignments: Vec<AssignmentKey>,
    /// The Eggs of these, for people.
    pub eggs: Vec<String>,
    /// What the cluster's Eggs among them say, by the revisions of their policies.
    pub of_cluster: BTreeSet<u64>,
    /// What its resolver is told: it may learn from these servers' answers.
    pub resolv_conf: ResolvConf,
    /// The Eggs themselves, to explain what became of a flow.
    pub explainer: Arc<Explainer>,
    /// The policy of all its Eggs together, or why there is none. Of a divided pod: of what belongs to none of its containers.
    pub policy: Result<Arc<CompiledPolicy>, Failure>,
    /// Where there is none: what is meanwhile to be in force if nothing is.
    pub fallback: Option<Fallback>,
    /// What counts for which container, if some Egg is for certain ones; where there is no policy, of the fallback.
    pub division: Option<Division>,
    /// How fast it may send.
    pub limits: Limits,
}

/// The bandwidth limits of a pod.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Its caps, the strictest first. Not known while one of its assignments cannot be read, or while its
    /// annotation means nothing: what it has stays.
    pub caps: Option<Vec<Cap>>,
    /// The strictest, and whose that is.
    pub strictest: Option<EgressLimit>,
    /// What is wrong with its annotation, if no Egg limits it.
    pub failure: Option<Failure>,
}

impl DesiredPod {
    /// The policy that is in force for the pod, or is to be.
    #[must_use]
    pub fn in_force_policy(&self) -> Option<&Arc<CompiledPolicy>> {
        self.policy.as_ref().ok().or(self.fallback.as_ref().map(|fallback| &fallback.policy))
    }
}

/// The policy of those Eggs of a pod that can be compiled.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// Their policy.
    pub policy: Arc<CompiledPolicy>,
    /// Their assignments.
    pub assignments: Vec<AssignmentKey>,
}

/// Why something is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One CamelCase word.
    pub reason: &'static str,
    /// What is wrong with which object, and what to do.
    pub message: String,
}

/// What every assignment together asks for, but for pods that are foreign to where it is written. `resolv_conf` says what a pod's resolver
/// is told. Compiles what `cache` has not yet, and
/// forgets what is not needed any more.
pub fn desired(
    inventory: &Inventory,
    resolv_conf: &dyn Fn(&AssignedPod) -> ResolvConf,
    is_foreign: &dyn Fn(&Entry, &AssignedPod) -> bool,
    cache: &mut PolicyCache,
) -> Desired {
    cache.begin();
    let mut selections: BTreeMap<&str, Selection<'_>> = BTreeMap::new();
    let mut knows_all_pods = inventory.is_complete();
    for entry in inventory.entries().chain(inventory.departed()) {
        let source = match &entry.good {
            Some(good) => Ok(good.policy.as_ref()),
            None => Err(unreadable(entry)),
        };
        if matches!(&entry.object.content, Err(unreadable) if unreadable.pods.is_none()) {
            knows_all_pods = false;
        }
        for pod in entry.pods().iter().filter(|pod| !is_foreign(entry, pod)) {
            let selection = selections.entry(&pod.uid).or_insert_with(|| Selection::new(pod));
            let ResolvConf { servers, search, own_search } = resolv_conf(pod);
            selection.resolv_conf.servers.extend(servers);
            selection.resolv_conf.search.extend(search);
            selection.resolv_conf.own_search.extend(own_search);
            selection.sources.push((entry, source.clone()));
        }
    }
    let late = cache.resume_at().map(|uid| selections.split_off(uid)).unwrap_or_default();
    let pods = late.into_iter().chain(selections);
    let pods = pods.map(|(uid, selection)| (uid.to_owned(), selection.pod(cache))).collect();
    let is_unfinished = cache.end();
    Desired { pods, knows_all_pods, is_unfinished, annotated: None }
}

/// The limits of a pod that no Egg selects.
#[must_use]
pub fn limits_of(pod: &AssignedPod) -> Limits {
    Selection::new(pod).limits()
}

/// A pod and all that select it.
struct Selection<'a> {
    pod: &'a AssignedPod,
    resolv_conf: ResolvConf,
    sources: Vec<(&'a Entry, Result<&'a PolicySpec, Failure>)>,
}

impl<'a> Selection<'a> {
    fn new(pod: &'a AssignedPod) -> Self {
        Selection { pod, resolv_conf: ResolvConf::default(), sources: Vec::new() }
    }

    fn pod(mut self, cache: &mut PolicyCache) -> DesiredPod {
        // The same policy for the same Eggs, whether or not the pod has departed from some.
        self.sources.sort_by_key(|(entry, _)| &entry.object.key);
        cache.ask_for(&self.pod.uid);
        let (policy, fallback, division) = match self.compile(cache) {
            Ok((policy, division)) => (Ok(policy), None, division),
            Err(failure) => {
                let (fallback, division) = self.compile_what_fits(cache).unzip();
                // What else is wrong with them together is told when that is known to be all.
                let is_late = fallback.is_none() && cache.is_postponing();
                let is_unread = [UNREADABLE, GUARD_NOT_READY].contains(&failure.reason);
                let failure = if is_late && !is_unread { postponed() } else { failure };
                (Err(failure), fallback, division.flatten())
            }
        };
        DesiredPod {
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
            host_network: self.pod.host_network,
            has_own_dns: !(self.pod.dns.nameservers.is_empty() && self.pod.dns.searches.is_empty()),
            assignments: self.sources.iter().map(|(entry, _)| entry.object.key.clone()).collect(),
            eggs: self.sources.iter().map(|(entry, _)| name_of(entry)).collect(),
            of_cluster: self.of_cluster(),
            explainer: Arc::new(self.explainer()),
            limits: self.limits(),
            resolv_conf: self.resolv_conf,
            policy,
            fallback,
            division,
        }
    }

    fn of_cluster(&self) -> BTreeSet<u64> {
        let of_cluster = self.sources.iter().filter(|(entry, _)| fallback::is_of_cluster(entry));
        of_cluster.map(|(entry, _)| entry.revision).collect()
    }

    fn explainer(&self) -> Explainer {
        let egg = |entry: &Entry| {
            let spec = Arc::clone(entry.written.as_ref()?);
            Some(ExplainedEgg { revision: entry.revision, name: name_of(entry), spec })
        };
        Explainer {
            uid: self.pod.uid.clone(),
            pod: subject_name(&self.pod.namespace, &self.pod.name),
            container: None,
            eggs: self.sources.iter().filter_map(|(entry, _)| egg(entry)).collect(),
            resolv_conf: self.resolv_conf.clone(),
        }
    }

    fn limits(&self) -> Limits {
        let readable = self.sources.iter().all(|(_, spec)| spec.is_ok());
        let assignments = self.sources.iter().filter_map(|(entry, _)| entry.good.as_ref());
        let mut found: Vec<(Cap, String)> =
            assignments.filter_map(|good| Some((cap_of(good, self.pod)?, egg_name(&good.egg)))).collect();
        if found.is_empty() && readable {
            match cap_of_annotation(self.pod) {
                Some(Ok(cap)) => found.push((cap, format!("annotation {EGRESS_BANDWIDTH_ANNOTATION}"))),
                Some(Err(error)) => {
                    return Limits { failure: Some(wrong_annotation(self.pod, &error)), ..Limits::default() };
                }
                None => {}
            }
        }
        if self.pod.host_network {
            // Whatever an assignment that cannot be read says: there is nothing to be left as it is.
            let failure = (!found.is_empty()).then(|| not_shaped(self.pod, &found));
            return Limits { caps: Some(Vec::new()), strictest: None, failure };
        }
        let caps = nest(found.iter().map(|(cap, _)| cap.clone()).collect());
        let strictest = caps.first().and_then(|first| found.iter().find(|(cap, _)| cap == first));
        let strictest = strictest.map(|(cap, of)| EgressLimit {
            bits_per_second: i64::try_from(cap.bits_per_second).unwrap_or(i64::MAX),
            of: of.clone(),
        });
        Limits { caps: readable.then_some(caps), strictest, failure: None }
    }

    fn compile(&self, cache: &mut PolicyCache) -> Result<Compiled, Failure> {
        let sources = self.sources.iter().map(|(entry, spec)| Ok(source(entry, spec.clone()?)));
        self.compile_all(&sources.collect::<Result<Vec<_>, _>>()?, cache)
    }

    fn compile_all(
        &self,
        sources: &[PolicySource<'_>],
        cache: &mut PolicyCache,
    ) -> Result<Compiled, Failure> {
        let division = Division::new(sources, |sources| cache.compile(sources, &self.resolv_conf))?;
        if division.is_none() {
            return Ok((cache.compile(sources, &self.resolv_conf)?, None));
        }
        let (revision, spec) = division::rest(sources);
        let rest = PolicySource { revision, name: "l7egg".into(), spec: &spec };
        // It says nothing of servers itself.
        let resolv_conf = self.resolv_conf.believed(&as_sources(sources));
        Ok((cache.compile(&[rest], &resolv_conf)?, division))
    }

    fn compile_what_fits(&self, cache: &mut PolicyCache) -> Option<(Fallback, Option<Division>)> {
        let fallback::Fitting { eggs, compiled: (policy, division) } =
            fallback::what_fits(&self.sources, |sources| self.compile_all(sources, cache))?;
        let assignments = eggs.iter().map(|(entry, _)| entry.object.key.clone()).collect();
        Some((Fallback { policy, assignments }, division))
    }
}

/// The policy of a pod, and those of its containers if they differ.
type Compiled = (Arc<CompiledPolicy>, Option<Division>);

fn source<'a>(entry: &Entry, spec: &'a PolicySpec) -> PolicySource<'a> {
    PolicySource { revision: entry.revision, name: name_of(entry), spec }
}

fn name_of(entry: &Entry) -> String {
    entry
        .good
        .as_ref()
        .map_or_else(|| format!("EggAssignment {}", entry.object.key), |good| egg_name(&good.egg))
}

/// Reason of the node itself while it is not known what it has to keep reachable.
pub const GUARD_NOT_READY: &str = "GuardNotReady";

/// Reason of pods with an assignment that cannot be read.
pub const UNREADABLE: &str = "AssignmentUnreadable";

fn unreadable(entry: &Entry) -> Failure {
    if entry.object.content.is_ok() {
        let message =
            "the API server's addresses, which stay reachable from the node, are not known yet".to_owned();
        return Failure { reason: GUARD_NOT_READY, message };
    }
    let message = entry.object.content.as_ref().err().map(|unreadable| unreadable.message.clone());
    Failure { reason: UNREADABLE, message: message.unwrap_or_default() }
}

fn not_shaped(pod: &AssignedPod, limits: &[(Cap, String)]) -> Failure {
    let of: Vec<&str> = limits.iter().map(|(_, of)| of.as_str()).collect();
    Failure {
        reason: "HostNetworkNotShaped",
        message: format!(
            "pod {}/{} uses its node's network (hostNetwork: true), whose interfaces belong to all: the bandwidth limit of {} does not hold for it; take the limit off it, or run it without hostNetwork",
            pod.namespace,
            pod.name,
            name_some(&of)
        ),
    }
}

fn wrong_annotation(pod: &AssignedPod, error: &str) -> Failure {
    Failure {
        reason: "AnnotationInvalid",
        message: format!(
            "annotation {EGRESS_BANDWIDTH_ANNOTATION} of pod {}/{}: {error}; correct or remove it, or limit the pod by an Egg",
            pod.namespace, pod.name
        ),
    }
}

#[cfg(test)]
mod tests;
