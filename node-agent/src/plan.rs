//! From what should be in force and what is, to what has to be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use l7egg_policy::CompiledPolicy;

use crate::{
    cgroup::{PodCgroup, PodCgroups},
    datapath::{ContainerPolicy, EnforcedPod, ShapedPod},
    desired::Desired,
    division::is_as_wanted,
    hold::HeldPod,
    shaping::Cap,
};

/// One call of the datapath.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Let nothing leave a pod until there is a policy for it.
    Hold {
        /// Uid of the pod.
        uid: String,
        /// Its cgroup.
        cgroup: PodCgroup,
    },
    /// Put a policy in force for a pod.
    Enforce {
        /// Uid of the pod.
        uid: String,
        /// Its cgroup.
        cgroup: PodCgroup,
        /// Its policy.
        policy: Arc<CompiledPolicy>,
        /// What is in force for each of its containers, if these differ: then the policy is of what belongs to none of them.
        containers: Option<Vec<ContainerPolicy>>,
        /// Whether nothing is in force for it yet.
        first: bool,
    },
    /// Hold a pod to these caps.
    Shape {
        /// Uid of the pod.
        uid: String,
        /// Its cgroup.
        cgroup: PodCgroup,
        /// Its caps, at least one.
        caps: Vec<Cap>,
    },
    /// Take its caps off a pod.
    Unshape {
        /// Uid of the pod.
        uid: String,
        /// Its cgroup, if it still has one.
        cgroup: Option<PodCgroup>,
    },
    /// Let go of a pod.
    Release {
        /// Uid of the pod.
        uid: String,
        /// Why.
        why: ReleaseReason,
    },
}

/// Why a pod is let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseReason {
    /// No Egg selects it any more.
    NoEgg,
    /// It was held, and is to be no longer.
    NotHeld,
    /// Its cgroup is gone, and its processes with it.
    Ended,
}

/// What is known of pods besides, by uid.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// One that is assigned no more keeps what is in force for it.
    pub until_end: &'a dyn Fn(&str) -> bool,
    /// So does one whatever is assigned to it.
    pub is_left_alone: &'a dyn Fn(&str) -> bool,
    /// One that another version's programs are attached for.
    pub is_in_older: &'a dyn Fn(&str) -> bool,
    /// One that has something in force, of which it is known that it is not of these of the cluster's Eggs.
    pub is_new_of_cluster: &'a dyn Fn(&str, &BTreeSet<u64>) -> bool,
}

/// What has to be done, most urgent first: pods that nothing is in force for, those to be `held`, changed policies, caps,
/// pods to let go of, unless that is to wait for their end. Empty if everything is as it should be.
#[must_use]
pub fn plan(
    desired: &Desired,
    held: &BTreeMap<String, HeldPod>,
    enforced: &[EnforcedPod],
    shaped: &[ShapedPod],
    cgroups: &PodCgroups,
    known: Known<'_>,
) -> Vec<Operation> {
    let enforced: BTreeMap<&str, &EnforcedPod> = enforced.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
    let mut first = Vec::new();
    let mut changes = Vec::new();
    for (uid, pod) in &desired.pods {
        let Some(cgroup) = cgroups.pods.get(uid) else { continue };
        // A cgroup that was made anew under the same name has nothing in force, whatever the old one had.
        let now = enforced.get(uid.as_str()).filter(|now| now.cgroup_id == cgroup.id);
        // What somebody writes in a namespace keeps no ClusterEgg from coming into force.
        let is_due = pod.policy.is_err() && (known.is_new_of_cluster)(uid, &pod.of_cluster);
        let policy = match (&pod.policy, &pod.fallback) {
            (Ok(policy), _) => policy,
            (Err(_), Some(fallback)) if is_due || now.is_none_or(|now| now.held) => &fallback.policy,
            // A container that is new has nothing in force.
            (Err(_), Some(fallback))
                if now.is_some_and(|now| now.containers.is_some()) && pod.division.is_some() =>
            {
                &fallback.policy
            }
            (Err(_), _) => continue,
        };
        let (there, is_settled) = (cgroups.containers_of(uid), pod.policy.is_ok() || is_due);
        if now.is_some_and(|now| now.policy == policy.digest && is_as_wanted(pod, there, now, is_settled)) {
            continue;
        }
        let operation = |first| Operation::Enforce {
            uid: uid.clone(),
            cgroup: cgroup.clone(),
            policy: Arc::clone(policy),
            containers: pod
                .division
                .as_ref()
                .map(|division| division.wanted(there, now.copied(), is_settled)),
            first,
        };
        // A held pod has been waiting for its first policy.
        match now {
            None if (known.is_in_older)(uid) && (known.is_left_alone)(uid) => {}
            // It has another version's programs: who has none comes first.
            None if (known.is_in_older)(uid) => changes.push(operation(true)),
            None => first.push(operation(true)),
            Some(now) if now.held => first.push(operation(true)),
            Some(_) if (known.is_left_alone)(uid) => {}
            Some(_) => changes.push(operation(false)),
        }
    }
    let holds = held.keys().filter_map(|uid| {
        let cgroup = cgroups.pods.get(uid)?;
        let is_attached = enforced.get(uid.as_str()).is_some_and(|now| now.cgroup_id == cgroup.id);
        (!is_attached && !(known.is_in_older)(uid))
            .then(|| Operation::Hold { uid: uid.clone(), cgroup: cgroup.clone() })
    });
    let releases = enforced.iter().filter_map(|(uid, now)| {
        let has_policy = || desired.pods.get(*uid).is_some_and(|pod| pod.in_force_policy().is_some());
        let why = if cgroups.complete && !cgroups.pods.contains_key(*uid) {
            ReleaseReason::Ended
        } else if held.contains_key(*uid) {
            return None;
        } else if now.held && !has_policy() && cgroups.pods.contains_key(*uid) {
            ReleaseReason::NotHeld
        } else if desired.knows_all_pods && !desired.pods.contains_key(*uid) && !(known.until_end)(uid) {
            ReleaseReason::NoEgg
        } else {
            return None;
        };
        Some(Operation::Release { uid: (*uid).to_owned(), why })
    });
    let caps = plan_caps(desired, shaped, cgroups);
    first.into_iter().chain(holds).chain(changes).chain(caps).chain(releases).collect()
}

fn plan_caps(desired: &Desired, shaped: &[ShapedPod], cgroups: &PodCgroups) -> Vec<Operation> {
    let shaped: BTreeMap<&str, &ShapedPod> = shaped.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
    let wanted = desired.all_limits().filter_map(|(uid, limits)| {
        let caps = limits.caps.as_ref().filter(|caps| !caps.is_empty())?;
        let cgroup = cgroups.pods.get(uid)?;
        if shaped.get(uid.as_str()).is_some_and(|now| now.caps.as_ref() == Some(caps)) {
            return None;
        }
        Some(Operation::Shape { uid: uid.clone(), cgroup: cgroup.clone(), caps: caps.clone() })
    });
    let unwanted = shaped.keys().filter_map(|uid| {
        let cgroup = cgroups.pods.get(*uid).cloned();
        let ended = cgroups.complete && cgroup.is_none();
        let unlimited = match desired.limits(uid) {
            Some(limits) => limits.caps.as_ref().is_some_and(Vec::is_empty),
            None => desired.knows_all_pods && desired.annotated.is_some(),
        };
        (ended || unlimited).then(|| Operation::Unshape { uid: (*uid).to_owned(), cgroup })
    });
    wanted.chain(unwanted).collect()
}

#[cfg(test)]
mod tests;
