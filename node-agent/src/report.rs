//! From what is in force to what every assignment's status should say.

use std::collections::{BTreeMap, BTreeSet};

use l7egg_crds::{
    AssignedPod, EggAssignmentStatus, EggReference, EgressLimit, HostReport, Mode, PodReport, PodState,
};
use l7egg_policy::CompiledPolicy;

use crate::{
    assignment::{Assignment, AssignmentKey, egg_name},
    cgroup::PodCgroups,
    cut::cut,
    datapath::{EnforcedPod, NETWORK_NOT_FOUND, NETWORK_NOT_READY, NODE_UID, ShapedPod},
    desired::{Desired, DesiredPod, Failure, GUARD_NOT_READY, Limits, UNREADABLE},
    division::is_as_wanted,
    hold::{HeldPod, LetGo, NO_POLICY},
    inventory::{Entry, Inventory},
    limits::{LIMIT_REACHED, Limit},
    policies::POSTPONED,
};

/// Reason of a pod that is under a limit, and that no Egg selects.
const LIMIT_ONLY: &str = "LimitOnly";
/// Bytes of a message: an assignment has one for each of its pods, and the API server takes no object without end.
const MESSAGE_MAX: usize = 1024;

/// The status that one assignment should have.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Uid of the assignment.
    pub uid: String,
    /// The Egg, where it is known.
    pub egg: Option<EggReference>,
    /// The assignment's pods, one for each entry of the status.
    pub pods: Vec<AssignedPod>,
    /// What the status should be.
    pub status: EggAssignmentStatus,
    /// What the API server has.
    pub known: Option<EggAssignmentStatus>,
}

/// What is known of the node's pods after a pass.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    /// What should be in force.
    pub desired: &'a Desired,
    /// What is.
    pub enforced: &'a BTreeMap<String, EnforcedPod>,
    /// Where the pods' cgroups are.
    pub cgroups: &'a PodCgroups,
    /// The pods to be held, by uid.
    pub held: &'a BTreeMap<String, HeldPod>,
    /// The pods that were let go without a policy, by uid.
    pub let_go: &'a BTreeMap<String, LetGo>,
    /// The node's limits that are reached.
    pub limits: &'a [Limit],
    /// Of these, those that only certain pods feel, by uid of the pods.
    pub limits_of_pods: &'a BTreeMap<String, BTreeSet<Limit>>,
    /// What went wrong, by uid of the pod.
    pub failures: &'a BTreeMap<String, Failure>,
    /// Pods under caps, by uid.
    pub shaped: &'a BTreeMap<String, ShapedPod>,
    /// Why pods are not under their caps, by uid.
    pub unshaped: &'a BTreeMap<String, Failure>,
    /// Pods whose networks are not found, and that are known to have one.
    pub unfound: &'a BTreeSet<String>,
    /// The boot of the node that all this is of.
    pub boot_id: Option<&'a str>,
}

impl Findings<'_> {
    /// What is in force for the pod's present cgroup.
    #[must_use]
    pub fn in_force(&self, uid: &str) -> Option<&EnforcedPod> {
        let cgroup = self.cgroups.pods.get(uid)?;
        self.enforced.get(uid).filter(|pod| pod.cgroup_id == cgroup.id)
    }

    /// State, reason and message of one pod; of one of its assignments, whose mode is then given, or of all.
    #[must_use]
    pub fn state(
        &self,
        pod: &DesiredPod,
        uid: &str,
        of: Option<(&AssignmentKey, Mode)>,
    ) -> (PodState, String, String) {
        let now = self.in_force(uid);
        let (of, mode) = of.unzip();
        match (&pod.policy, now) {
            (Ok(policy), Some(now)) if now.policy == policy.digest && self.is_divided(pod, uid, now) => {
                if let Some(nameless) = self.nameless(pod, uid) {
                    return failed(&nameless, Some(now));
                }
                if self.unfound.contains(uid) {
                    return found_nowhere(pod);
                }
                return self.shaping_state(
                    &pod.limits,
                    uid,
                    in_force(policy, mode),
                    "; its rules are enforced",
                );
            }
            (Err(_), Some(now)) if self.is_divided(pod, uid, now) => {
                if let Some(policy) = covered_by_fallback(pod, now, of) {
                    if self.unfound.contains(uid) {
                        return found_nowhere(pod);
                    }
                    return in_force(policy, mode);
                }
            }
            _ => {}
        }
        let failure = pod.policy.as_ref().err().or_else(|| self.failures.get(uid));
        match failure {
            Some(failure) if [GUARD_NOT_READY, POSTPONED].contains(&failure.reason) => {
                (PodState::Pending, failure.reason.into(), failure.message.clone())
            }
            Some(failure) => failed(failure, now),
            None if now.is_none() && !self.cgroups.pods.contains_key(uid) => {
                waiting(pod, self.cgroups.complete)
            }
            None => (PodState::Pending, "InProgress".into(), "the agent has not come to this pod yet".into()),
        }
    }
}

impl Findings<'_> {
    /// The strictest limit that holds for a pod.
    #[must_use]
    pub fn limit(&self, limits: &Limits, uid: &str) -> Option<EgressLimit> {
        limits.strictest.clone().filter(|_| self.is_shaped(limits, uid))
    }

    /// State, reason and message of a pod that has a limit and no rules.
    #[must_use]
    pub fn limit_state(&self, limits: &Limits, uid: &str) -> (PodState, String, String) {
        let in_force = (PodState::Enforced, LIMIT_ONLY.to_owned(), String::new());
        self.shaping_state(limits, uid, in_force, "")
    }

    /// A state with what limits of the node mean for a pod whose rules are in force.
    #[must_use]
    pub fn limited(
        &self,
        pod: &DesiredPod,
        uid: &str,
        (state, reason, message): (PodState, String, String),
    ) -> (PodState, String, String) {
        let is_in_force = matches!(state, PodState::Enforced | PodState::Audited) && message.is_empty();
        let Some(policy) = pod.in_force_policy().filter(|_| is_in_force) else {
            return (state, reason, message);
        };
        let concerned = self.limits.iter().filter(|limit| limit.concerns(policy));
        let own = self.limits_of_pods.get(uid).into_iter().flatten();
        match concerned.chain(own).map(|limit| limit.message()).collect::<Vec<_>>() {
            messages if messages.is_empty() => (state, reason, message),
            messages => (state, LIMIT_REACHED.into(), messages.join("; ")),
        }
    }

    /// Whether what is in force for a pod's containers is what should be, or the fallback of that.
    fn is_divided(&self, pod: &DesiredPod, uid: &str, now: &EnforcedPod) -> bool {
        is_as_wanted(pod, self.cgroups.containers_of(uid), now, true)
    }

    /// Containers of which it could not be found out which ones they are. One is the sandbox.
    fn nameless(&self, pod: &DesiredPod, uid: &str) -> Option<Failure> {
        let nameless =
            self.cgroups.containers_of(uid).values().filter(|container| container.is_nameless()).count();
        (nameless > 1).then(|| Failure {
            reason: "ContainerUnknown",
            message: format!(
                "pod {}/{}: it could not be found out which of its containers {} cgroups are of, so these send nothing; the kubelet's file for termination messages tells it, which is mounted in every container",
                pod.namespace, pod.name, nameless - 1
            ),
        })
    }

    /// The state of a pod whose rules are in force, which by themselves make it `in_force`; `rest` is said of them where the limit
    /// fails.
    fn shaping_state(
        &self,
        limits: &Limits,
        uid: &str,
        in_force: (PodState, String, String),
        rest: &str,
    ) -> (PodState, String, String) {
        let told = |failure: &Failure| {
            (PodState::Failed, failure.reason.into(), format!("{}{rest}", failure.message))
        };
        match limits.failure.as_ref().or_else(|| self.unshaped.get(uid)) {
            Some(failure) if limits.failure.is_some() => told(failure),
            _ if self.is_shaped(limits, uid) => in_force,
            Some(failure) if failure.reason == NETWORK_NOT_READY => {
                (PodState::Pending, failure.reason.into(), failure.message.clone())
            }
            Some(failure) => told(failure),
            None => {
                (PodState::Pending, "InProgress".into(), "the pod's bandwidth limit is being set up".into())
            }
        }
    }

    /// Whether the pod is under the caps that it should be under.
    fn is_shaped(&self, limits: &Limits, uid: &str) -> bool {
        match &limits.caps {
            Some(caps) if caps.is_empty() => true,
            Some(caps) => self.shaped.get(uid).is_some_and(|now| now.caps.as_ref() == Some(caps)),
            None => true,
        }
    }
}

/// The status that every assignment should have.
#[must_use]
pub fn reports(inventory: &Inventory, findings: Findings<'_>) -> BTreeMap<AssignmentKey, Report> {
    inventory.entries().map(|entry| (entry.object.key.clone(), report(entry, findings))).collect()
}

fn report(entry: &Entry, findings: Findings<'_>) -> Report {
    let pods: Vec<AssignedPod> = entry.object.pods().to_vec();
    let one = |pod: &AssignedPod| {
        let (state, reason, message) = match (&entry.object.content, findings.desired.pods.get(&pod.uid)) {
            (Err(unreadable), _) => failed(
                &Failure { reason: UNREADABLE, message: unreadable.message.clone() },
                findings.in_force(&pod.uid),
            ),
            (Ok(assignment), Some(desired)) => {
                let of = Some((&entry.object.key, assignment.policy.mode));
                findings.limited(desired, &pod.uid, findings.state(desired, &pod.uid, of))
            }
            (Ok(_), None) => (
                PodState::Pending,
                "PodUnknown".to_owned(),
                format!(
                    "the API server has not told the agent of pod {}/{} as it is assigned",
                    pod.namespace, pod.name
                ),
            ),
        };
        let (reason, message) = match &entry.object.content {
            Ok(assignment) if reason.is_empty() && state != PodState::Pending => {
                missing_containers(pod, assignment).unwrap_or_default()
            }
            _ => (reason, message),
        };
        let desired = findings.desired.pods.get(&pod.uid);
        let egress_limit = desired.and_then(|desired| findings.limit(&desired.limits, &pod.uid));
        PodReport { uid: pod.uid.clone(), state, reason, message: cut(message, MESSAGE_MAX), egress_limit }
    };
    let (of_node, of_pods): (Vec<_>, Vec<_>) =
        pods.iter().map(one).partition(|report: &PodReport| report.uid == NODE_UID);
    let of_node = of_node.into_iter().next().map(|report| HostReport {
        state: report.state,
        reason: report.reason,
        message: report.message,
        guard: entry.guard.clone(),
    });
    Report {
        uid: entry.object.uid.clone(),
        egg: entry.good.as_ref().map(|good| good.egg.clone()),
        status: EggAssignmentStatus {
            observed_generation: entry.object.generation,
            boot_id: findings.boot_id.map(str::to_owned),
            pods: of_pods,
            host: of_node,
        },
        pods,
        known: entry.object.reported.clone(),
    }
}

/// What to say of a pod that does not have all containers that an Egg is for.
fn missing_containers(pod: &AssignedPod, assignment: &Assignment) -> Option<(String, String)> {
    let missing: Vec<&str> = assignment
        .policy
        .containers
        .iter()
        .filter(|name| !pod.containers.contains(name))
        .map(String::as_str)
        .collect();
    if missing.is_empty() || pod.containers.is_empty() {
        return None;
    }
    let message = format!(
        "pod {}/{} has no container {}, only {}: see spec.containers of {}",
        pod.namespace,
        pod.name,
        missing.join(", "),
        pod.containers.join(", "),
        egg_name(&assignment.egg)
    );
    Some(("NoSuchContainer".into(), message))
}

/// Why a pod's rules do not hold for all that it sends.
pub(crate) fn not_found(pod: &DesiredPod) -> Failure {
    Failure {
        reason: NETWORK_NOT_FOUND,
        message: format!(
            "the network of pod {}/{} is not found: no process in the pod's cgroup is in one that leads to the node. What the pod's sockets send is judged; what a sandboxed runtime sends for it is not. With Kata, set sandbox_cgroup_only=true on the node",
            pod.namespace, pod.name
        ),
    }
}

/// The state of a pod whose rules are in force for its sockets alone.
fn found_nowhere(pod: &DesiredPod) -> (PodState, String, String) {
    let Failure { reason, message } = not_found(pod);
    (PodState::Failed, reason.to_owned(), message)
}

fn covered_by_fallback<'a>(
    pod: &'a DesiredPod,
    now: &EnforcedPod,
    of: Option<&AssignmentKey>,
) -> Option<&'a CompiledPolicy> {
    let fallback = pod.fallback.as_ref()?;
    let covers = now.policy == fallback.policy.digest && fallback.assignments.contains(of?);
    covers.then_some(&*fallback.policy)
}

/// An assignment is what its mode says; a pod is audited if none of its Eggs is enforced.
fn in_force(policy: &CompiledPolicy, mode: Option<Mode>) -> (PodState, String, String) {
    let audited = mode.map_or(policy.enforcement.is_nothing(), |mode| mode == Mode::Audit);
    (if audited { PodState::Audited } else { PodState::Enforced }, String::new(), String::new())
}

fn failed(failure: &Failure, now: Option<&EnforcedPod>) -> (PodState, String, String) {
    let rest = match now {
        Some(now) if now.held => "the pod is held: nothing may leave it",
        Some(now) if now.policy == NO_POLICY => "nothing, or not all, is in force for the pod",
        Some(_) => "what was in force for the pod before still is",
        None => "nothing is in force for the pod",
    };
    (PodState::Failed, failure.reason.to_owned(), format!("{}; {rest}", failure.message))
}

fn waiting(pod: &DesiredPod, complete: bool) -> (PodState, String, String) {
    let (reason, what) = if complete {
        (
            "WaitingForCgroup",
            "the kubelet has not made it yet, or the pod has ended, or it is a static pod, which cannot be enforced",
        )
    } else {
        (
            "NoKubeletCgroups",
            "no kubepods directory was found in any cgroup2 mount: give the agent the host's /sys/fs/cgroup, or name the mount with --cgroup-root",
        )
    };
    let message = match pod.namespace.as_str() {
        "" => format!("node {} cannot be told from its pods: {what}", pod.name),
        namespace => format!("pod {namespace}/{} has no cgroup: {what}", pod.name),
    };
    (PodState::Pending, reason.into(), message)
}

#[cfg(test)]
mod tests;
