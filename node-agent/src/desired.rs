//! From assignments to what should be in force for every pod of the node.

use std::{collections::BTreeMap, sync::Arc};

use l7egg_crds::{AssignedPod, EGRESS_BANDWIDTH_ANNOTATION, EgressLimit, PolicySpec};
use l7egg_policy::{CompiledPolicy, ResolvConf};

use crate::{
    annotated::AnnotatedPod,
    assignment::{AssignmentKey, egg_name, subject_name},
    division::{self, Division},
    explain::{ExplainedEgg, Explainer},
    inventory::{Entry, Inventory},
    policies::{PolicyCache, PolicySource},
    resolvers::{NodeResolvers, resolv_conf},
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
    /// The assignments that name it.
    pub assignments: Vec<AssignmentKey>,
    /// The Eggs of these, for people.
    pub eggs: Vec<String>,
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

/// What every assignment together asks for. Compiles what `cache` has not yet, and forgets what is not
/// needed any more.
pub fn desired(inventory: &Inventory, node: &NodeResolvers, cache: &mut PolicyCache) -> Desired {
    let mut selections: BTreeMap<&str, Selection<'_>> = BTreeMap::new();
    let mut knows_all_pods = inventory.is_complete();
    for entry in inventory.entries() {
        let (pods, source) = match &entry.good {
            Some(good) => (good.pods.as_slice(), Ok(good.policy.as_ref())),
            None => (entry.object.pods(), Err(unreadable(entry))),
        };
        if matches!(&entry.object.content, Err(unreadable) if unreadable.pods.is_none()) {
            knows_all_pods = false;
        }
        for pod in pods {
            let selection = selections.entry(&pod.uid).or_insert_with(|| Selection::new(pod));
            let ResolvConf { servers, search } = resolv_conf(pod, node);
            selection.resolv_conf.servers.extend(servers);
            selection.resolv_conf.search.extend(search);
            selection.sources.push((entry, source.clone()));
        }
    }
    let pods =
        selections.into_iter().map(|(uid, selection)| (uid.to_owned(), selection.pod(cache))).collect();
    cache.forget_unused();
    Desired { pods, knows_all_pods, annotated: None }
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

    fn pod(self, cache: &mut PolicyCache) -> DesiredPod {
        let (policy, fallback, division) = match self.compile(cache) {
            Ok((policy, division)) => (Ok(policy), None, division),
            Err(failure) => {
                let (fallback, division) = self.compile_what_can_be(cache).unzip();
                (Err(failure), fallback, division.flatten())
            }
        };
        DesiredPod {
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
            host_network: self.pod.host_network,
            assignments: self.sources.iter().map(|(entry, _)| entry.object.key.clone()).collect(),
            eggs: self.sources.iter().map(|(entry, _)| name_of(entry)).collect(),
            explainer: Arc::new(self.explainer()),
            limits: self.limits(),
            resolv_conf: self.resolv_conf,
            policy,
            fallback,
            division,
        }
    }

    fn explainer(&self) -> Explainer {
        let egg = |entry: &Entry| {
            let spec = Arc::clone(&entry.good.as_ref()?.policy);
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

    fn compile(&self, cache: &mut PolicyCache) -> Result<(Arc<CompiledPolicy>, Option<Division>), Failure> {
        let sources = self.sources.iter().map(|(entry, spec)| Ok(source(entry, spec.clone()?)));
        self.compile_all(&sources.collect::<Result<Vec<_>, _>>()?, cache)
    }

    /// The policy of the pod, and those of its containers if they differ.
    fn compile_all(
        &self,
        sources: &[PolicySource<'_>],
        cache: &mut PolicyCache,
    ) -> Result<(Arc<CompiledPolicy>, Option<Division>), Failure> {
        let division = Division::new(sources, |sources| cache.compile(sources, &self.resolv_conf))?;
        if division.is_none() {
            return Ok((cache.compile(sources, &self.resolv_conf)?, None));
        }
        let (revision, spec) = division::rest(sources);
        let rest = PolicySource { revision, name: "l7egg".into(), spec: &spec };
        Ok((cache.compile(&[rest], &self.resolv_conf)?, division))
    }

    fn compile_what_can_be(&self, cache: &mut PolicyCache) -> Option<(Fallback, Option<Division>)> {
        let mut sources = Vec::new();
        let mut assignments = Vec::new();
        for (entry, spec) in &self.sources {
            let Ok(spec) = spec else { continue };
            let source = source(entry, spec);
            if cache.compile(std::slice::from_ref(&source), &self.resolv_conf).is_ok() {
                sources.push(source);
                assignments.push(entry.object.key.clone());
            }
        }
        if sources.is_empty() {
            return None;
        }
        let (policy, division) = self.compile_all(&sources, cache).ok()?;
        Some((Fallback { policy, assignments }, division))
    }
}

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

fn unreadable(entry: &Entry) -> Failure {
    if entry.object.content.is_ok() {
        let message =
            "the API server's addresses, which stay reachable from the node, are not known yet".to_owned();
        return Failure { reason: GUARD_NOT_READY, message };
    }
    let message = entry.object.content.as_ref().err().map(|unreadable| unreadable.message.clone());
    Failure { reason: "AssignmentUnreadable", message: message.unwrap_or_default() }
}

fn not_shaped(pod: &AssignedPod, limits: &[(Cap, String)]) -> Failure {
    let of: Vec<&str> = limits.iter().map(|(_, of)| of.as_str()).collect();
    Failure {
        reason: "HostNetworkNotShaped",
        message: format!(
            "pod {}/{} uses its node's network (hostNetwork: true), whose interfaces belong to all: the bandwidth limit of {} does not hold for it; take the limit off it, or run it without hostNetwork",
            pod.namespace,
            pod.name,
            of.join(", ")
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
mod tests {
    use super::*;
    use crate::testing::{AssignmentBuilder, assignment, inventory_of};

    fn desired_of(assignments: &[AssignmentBuilder]) -> Desired {
        let node = NodeResolvers {
            cluster: vec!["10.96.0.10".parse().unwrap()],
            node: vec!["198.18.0.53".parse().unwrap()],
            ..NodeResolvers::default()
        };
        desired(&inventory_of(assignments), &node, &mut PolicyCache::default())
    }

    #[test]
    fn eggs_of_one_pod_become_one_policy() {
        let both = desired_of(&[
            assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2"),
            assignment("b").allow("192.0.2.0/24").pod("p1"),
        ]);
        assert!(both.knows_all_pods);
        let p1 = &both.pods["p1"];
        assert_eq!(p1.eggs, ["Egg shop/a", "Egg shop/b"]);
        assert_eq!(p1.policy.as_ref().unwrap().cidrs.len(), 2);
        let p2 = &both.pods["p2"];
        assert_eq!(p2.policy.as_ref().unwrap().cidrs.len(), 1);
        assert_ne!(p1.policy.as_ref().unwrap().digest, p2.policy.as_ref().unwrap().digest);
    }

    #[test]
    fn pods_of_one_egg_share_one_compiled_policy() {
        let pods = desired_of(&[assignment("a").allow("10.0.0.0/8").pod("p1").pod("p2")]).pods;
        assert!(Arc::ptr_eq(pods["p1"].policy.as_ref().unwrap(), pods["p2"].policy.as_ref().unwrap()));
    }

    #[test]
    fn resolvers_are_part_of_the_policy() {
        let pods = desired_of(&[assignment("a").pod("p1").pod_asking("p2", "9.9.9.9")]).pods;
        assert_ne!(pods["p1"].policy.as_ref().unwrap().digest, pods["p2"].policy.as_ref().unwrap().digest);
    }

    #[test]
    fn pods_in_the_nodes_network_ask_its_resolvers_and_have_no_limit() {
        let pods = desired_of(&[assignment("a").shape("5M", "Pod").pod("p1").host_network_pod("p2")]).pods;
        assert_ne!(pods["p1"].policy.as_ref().unwrap().digest, pods["p2"].policy.as_ref().unwrap().digest);
        assert!(pods["p1"].limits.failure.is_none());
        let limits = &pods["p2"].limits;
        assert_eq!((&limits.caps, &limits.strictest), (&Some(vec![]), &None));
        let failure = limits.failure.as_ref().unwrap();
        assert_eq!(failure.reason, "HostNetworkNotShaped");
        assert!(failure.message.contains("limit of Egg shop/a does not hold"), "{}", failure.message);
        let pods = desired_of(&[assignment("a").host_network_pod("p2")]).pods;
        assert!(pods["p2"].limits.failure.is_none());
    }

    #[test]
    fn what_cannot_be_compiled_leaves_the_other_eggs() {
        let pods = desired_of(&[
            assignment("good").allow("10.0.0.0/8").pod("p1"),
            assignment("bad").allow("not a network").pod("p1").pod("p2"),
        ])
        .pods;
        let failure = pods["p1"].policy.as_ref().unwrap_err();
        assert_eq!(failure.reason, "PolicyInvalid");
        assert!(failure.message.contains("Egg shop/bad"), "{}", failure.message);
        let fallback = pods["p1"].fallback.as_ref().unwrap();
        assert_eq!(fallback.assignments.len(), 1);
        assert_eq!(fallback.policy.cidrs.len(), 1);
        assert!(pods["p2"].fallback.is_none());
    }

    #[test]
    fn an_egg_for_certain_containers_divides_the_pod() {
        let pods = desired_of(&[
            assignment("app").allow("10.0.0.0/8").containers(&["app", "init"]).pod("p1"),
            assignment("proxy").allow("192.0.2.0/24").containers(&["proxy"]).pod("p1").pod("p2"),
            assignment("all").allow("198.51.100.0/24").pod("p2").pod("p3"),
        ])
        .pods;
        let division = |uid: &str| pods[uid].division.clone().unwrap();
        let cidrs =
            |uid: &str, container: &str| division(uid).policy_of(container).map(|policy| policy.cidrs.len());
        assert_eq!(
            (cidrs("p1", "app"), cidrs("p1", "init"), cidrs("p1", "proxy")),
            (Some(1), Some(1), Some(1))
        );
        assert_eq!(cidrs("p1", "other"), None);
        // What belongs to no container.
        assert!(pods["p1"].policy.as_ref().unwrap().cidrs.is_empty());
        assert_eq!((cidrs("p2", "proxy"), cidrs("p2", "other")), (Some(2), Some(1)));
        assert!(pods["p3"].division.is_none());
        assert_eq!(pods["p3"].policy.as_ref().unwrap().cidrs.len(), 1);
    }

    #[test]
    fn a_bad_egg_leaves_containers_the_others() {
        let pods = desired_of(&[
            assignment("good").allow("10.0.0.0/8").containers(&["app"]).pod("p1"),
            assignment("bad").allow("not a network").pod("p1"),
        ])
        .pods;
        assert_eq!(pods["p1"].policy.as_ref().unwrap_err().reason, "PolicyInvalid");
        assert_eq!(pods["p1"].fallback.as_ref().unwrap().assignments.len(), 1);
        assert!(pods["p1"].division.as_ref().unwrap().policy_of("app").is_some());
    }

    fn strictest(pod: &DesiredPod) -> String {
        pod.limits.strictest.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn an_annotation_limits_a_pod_that_no_egg_limits() {
        let of = |eggs: &[AssignmentBuilder]| desired_of(eggs).pods["p1"].clone();
        let annotated = |name: &str| assignment(name).annotated_pod("p1", "3M");
        let pod = of(&[annotated("a"), annotated("b")]);
        assert_eq!(pod.limits.caps.as_ref().unwrap()[0].bits_per_second, 3_000_000);
        assert_eq!(strictest(&pod), "3M of annotation kubernetes.io/egress-bandwidth");
        // An Egg that does nothing else.
        let pod = of(&[annotated("a").audit()]);
        assert_eq!(strictest(&pod), "3M of annotation kubernetes.io/egress-bandwidth");
        // Whoever may write Eggs decides, also for more than the annotation allows.
        let pod = of(&[annotated("a"), annotated("b").shape("5M", "Pod")]);
        assert_eq!(strictest(&pod), "5M of Egg shop/b");
        assert_eq!(pod.limits.caps.unwrap().len(), 1);
        let pod = of(&[annotated("a"), assignment("bad").malformed().pod("p1")]);
        assert_eq!(pod.limits.caps, None);
    }

    #[test]
    fn an_annotation_that_means_nothing_changes_nothing_and_is_told() {
        let pods = desired_of(&[assignment("a").annotated_pod("p1", "fast").pod("p2")]).pods;
        let failure = pods["p1"].limits.failure.as_ref().unwrap();
        assert_eq!(failure.reason, "AnnotationInvalid");
        assert!(failure.message.contains("of pod shop/p1: \"fast\" is not a rate"), "{}", failure.message);
        assert_eq!(pods["p1"].limits.caps, None);
        assert!(pods["p1"].policy.is_ok());
        assert_eq!(pods["p2"].limits.caps, Some(Vec::new()));
    }

    #[test]
    fn caps_of_several_eggs_nest_and_an_unreadable_egg_leaves_them_as_they_are() {
        let shaped = |name: &str, rate: &str, scope: &str| assignment(name).shape(rate, scope).pod("p1");
        let pods = desired_of(&[
            shaped("a", "5M", "Pod"),
            shaped("b", "8M", "Pod").share(None, 1),
            assignment("c").pod("p1"),
        ])
        .pods;
        let caps = pods["p1"].limits.caps.as_ref().unwrap();
        assert_eq!(caps.iter().map(|cap| cap.bits_per_second).collect::<Vec<_>>(), [5_000_000]);
        assert_eq!(strictest(&pods["p1"]), "5M of Egg shop/a");
        let pods = desired_of(&[
            shaped("a", "5M", "Pod"),
            shaped("b", "8M", "Egg").share(None, 2_000_000),
            shaped("c", "8M", "Namespace").share(Some("other"), 1).share(Some("shop"), 6_000_000),
        ])
        .pods;
        let caps = pods["p1"].limits.caps.as_ref().unwrap();
        let names: Vec<String> = caps.iter().map(|cap| cap.name.to_string()).collect();
        assert_eq!(names, ["egg/egg-b", "pod/p1", "namespace/shop/egg-c"]);
        assert_eq!(caps[2].bits_per_second, 6_000_000);
        assert_eq!(strictest(&pods["p1"]), "2M of Egg shop/b");
        let pods = desired_of(&[shaped("a", "5M", "Pod"), assignment("bad").malformed().pod("p1")]).pods;
        assert_eq!(pods["p1"].limits.caps, None);
    }

    #[test]
    fn too_much_together_is_a_failure_of_all() {
        let many = |name: &str, first: i32| {
            (0..40).fold(assignment(name).pod("p1"), |egg, n| egg.allow_port("10.0.0.0/8", first + n))
        };
        let pods = desired_of(&[many("a", 1000), many("b", 2000)]).pods;
        assert_eq!(pods["p1"].policy.as_ref().unwrap_err().reason, "PolicyTooLarge");
        assert!(pods["p1"].fallback.is_none());
    }

    #[test]
    fn an_unreadable_assignment_touches_nothing_but_its_pods() {
        let found = desired_of(&[
            assignment("good").allow("10.0.0.0/8").pod("p1").pod("p3"),
            assignment("bad").malformed().pod("p1").pod("p2"),
        ]);
        assert_eq!(found.pods["p1"].policy.as_ref().unwrap_err().reason, "AssignmentUnreadable");
        assert_eq!(found.pods["p1"].fallback.as_ref().unwrap().assignments.len(), 1);
        assert!(found.pods["p2"].policy.is_err());
        assert!(found.pods["p3"].policy.is_ok());
        assert!(found.knows_all_pods);
        assert!(!desired_of(&[assignment("bad").without_readable_pods()]).knows_all_pods);
    }
}
