//! The loop that owns the datapath: takes in what the API server and the cgroup tree say, and makes the kernel
//! enforce it, pass by pass. A pass changes nothing if nothing differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use kube::{api::DynamicObject, runtime::watcher};
use tokio::sync::{OwnedSemaphorePermit, watch};

mod backstops;
mod begin;
mod ending;
mod gate;
mod glance;
mod look;
mod mend;
mod network;
mod outcome;
mod pace;
mod perform;
mod ready;
mod retire;
mod room;
mod settle;
mod take;
mod tell;
mod timeline;

use self::{
    backstops::Backstops,
    ending::Found,
    glance::Wiring,
    network::Unfound,
    outcome::explainers,
    pace::{EnforcePace, ShapingPace},
    retire::Retirement,
    settle::Later,
    timeline::Timeline,
};
pub use self::{outcome::Outcome, take::Taken};
use crate::{
    annotated::annotated,
    assignment::AssignmentKey,
    causes::causes,
    cgroup::{CgroupEvent, Follower, PodCgroup, PodCgroups},
    datapath::{Datapath, EnforcedPod},
    desired::{Desired, Failure},
    guard::ApiServers,
    hold::{HeldPod, Holds},
    inventory::Inventory,
    kinds::Kind,
    limits::Limits,
    metrics::Metrics,
    notice::notices,
    plan::{Known, plan},
    policies::PolicyCache,
    report::{Findings, reports},
    resolvers::NodeResolvers,
    room::Room,
    selected::{News, Selected},
    state::{AgentState, Unwatched, state},
};

/// A pass is made at least this often: it repeats what failed.
const TICK: Duration = Duration::from_secs(1);
/// Most inputs that are taken in before a pass.
const AT_ONCE: usize = 1024;
/// How often the datapath removes what nothing uses.
const COLLECT_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether what is enforced still is.
const MEND_EVERY: Duration = Duration::from_secs(2);

/// What the reconciler reacts to.
#[derive(Debug)]
pub enum Input {
    /// The API server says something.
    Assignments(Box<watcher::Event<DynamicObject>>),
    /// The API server says something of what decides whom Eggs select.
    Selected(News),
    /// Why a kind cannot be watched, in one line; nothing if it can be again.
    Unwatched(Kind, Option<String>),
    /// The cgroup tree changed.
    Cgroup(CgroupEvent),
    /// Somebody has changed the filters of these interfaces of the node: maybe it was this agent.
    Filters(BTreeSet<u32>),
    /// Where the API server is.
    ApiServers(ApiServers),
    /// Which DNS servers are believed, where that changes.
    Resolvers(NodeResolvers),
    /// One of those of which only so many may wait to be taken in: each has a permit until then.
    Counted(Box<Input>, OwnedSemaphorePermit),
    /// The agent ends.
    Stop,
}

/// The node's own cgroup, which holds all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCgroup {
    /// Where it is.
    pub cgroup: PodCgroup,
    /// Somebody has said so. Otherwise it is the machine's, which may be that of several nodes.
    pub is_given: bool,
    /// What in it is not the node's concern.
    pub apart: Apart,
}

/// What a node's own Eggs leave alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// All pods, whether or not something is in force for them: what is in the kubelet's directories.
    AllPods,
    /// Those that something is in force for, [`PODS_CGROUPS`](l7egg_ebpf_common::abi::PODS_CGROUPS) at most.
    EnforcedPods,
}

/// Everything between the inputs and the kernel.
pub struct Reconciler<D> {
    datapath: D,
    node: NodeResolvers,
    metrics: Arc<Metrics>,
    inventory: Inventory,
    cgroups: PodCgroups,
    selected: Selected,
    /// Whether all that `selected` can know is going to be told.
    is_told_of_pods: bool,
    /// Why kinds cannot be watched now, and since when.
    unwatched: BTreeMap<Kind, Unwatched>,
    /// Whether all cgroups have been looked at once.
    has_found_pods: bool,
    found: Found,
    /// Where Eggs are not told: since when pods have no assignment that have something in force, by uid.
    unassigned: BTreeMap<String, Instant>,
    /// The pods that another version's programs are attached for, by uid, with the ids of their cgroups.
    older: BTreeMap<String, u64>,
    retirement: Retirement,
    /// Whether annotations limit pods that no Egg selects.
    heeds_annotations: bool,
    holds: Holds,
    /// The pods to be held, as the last pass found.
    held: BTreeMap<String, HeldPod>,
    follower: Option<Follower>,
    node_cgroup: Option<NodeCgroup>,
    /// The boot of the node, for reports.
    boot_id: Option<String>,
    policies: PolicyCache,
    desired: Desired,
    /// Something came that `desired` does not know of.
    is_stale: bool,
    /// Of pods that have something in force: revisions of the cluster's Eggs that it is of, where this agent has seen that.
    in_force_of_cluster: BTreeMap<String, BTreeSet<u64>>,
    failures: BTreeMap<String, Failure>,
    /// Why pods are not under their caps, by uid.
    unshaped: BTreeMap<String, Failure>,
    shaping: ShapingPace,
    wiring: Wiring,
    unfound: Unfound,
    enforcing: EnforcePace,
    /// Something of the last pass's plan was left for the next one.
    is_unfinished: bool,
    timeline: Timeline,
    limits: Limits,
    room: Room,
    /// Pods whose connections have not been looked at since their policy changed, or since the agent started.
    unsettled: BTreeSet<String>,
    told_unsettled: bool,
    /// Of these, when those are looked at again of which that has failed.
    unsettled_until: BTreeMap<String, Later>,
    /// Assignments that were said to be unreadable, with the reason.
    told_unreadable: BTreeMap<AssignmentKey, String>,
    told_unknown: bool,
    /// Pods without a backstop that were told.
    told_uncovered: BTreeSet<String>,
    /// Whether it was told that more pods have Eggs than the node's own can leave alone.
    told_crowd: bool,
    /// Pods that could not be held that were told.
    told_unheld: BTreeSet<String>,
    /// What was said of the gate.
    told_gate: Option<String>,
    /// What was said of what cannot be put back.
    told_unmended: Option<String>,
    backstops: Backstops,
}

impl<D: Datapath> Reconciler<D> {
    /// The loop. Ends when told to, or when nobody is left to tell.
    pub fn run(mut self, inputs: &mpsc::Receiver<Input>, outcome: &watch::Sender<Arc<Outcome>>) {
        let mut collect_at = Instant::now() + COLLECT_EVERY;
        let mut mend_at = Instant::now() + MEND_EVERY;
        let mut tick_at = Instant::now() + TICK;
        let mut tell_at = Instant::now();
        loop {
            let is_busy = self.is_unfinished
                || self.has_unsettled()
                || self.shaping.is_unfinished()
                || self.wiring.is_unfinished()
                || self.desired.is_unfinished;
            // Whatever comes meanwhile, a pass is not made later than this.
            let next = self.holds.due().map_or(tick_at, |due| due.min(tick_at));
            let patience = match is_busy {
                true => Duration::ZERO,
                false => next.saturating_duration_since(Instant::now()).min(self.glance_in()),
            };
            let can_wait = || !is_busy && Instant::now() < next;
            match inputs.recv_timeout(patience) {
                Ok(first) => {
                    let all = std::iter::once(first).chain(inputs.try_iter().take(AT_ONCE));
                    match all.map(|input| self.take(input)).max() {
                        Some(Taken::Stop) => return,
                        // Most of what the watches tell is what this agent has just written, and other nodes' news.
                        Some(Taken::Nothing) if can_wait() && !self.glance() => continue,
                        _ => {}
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) if can_wait() && !self.glance() => continue,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            let start = Instant::now();
            tick_at = start + TICK;
            if let Some(new) = self.pass()
                // Half of a change is not worth telling, unless it takes long.
                && (!self.is_unfinished || start >= tell_at)
            {
                tell_at = start + TICK;
                outcome.send_if_modified(|old| {
                    let changed = **old != new;
                    *old = Arc::new(new);
                    changed
                });
            }
            // One by one, so that a new pod does not wait for many.
            self.settle_one();
            if Instant::now() >= collect_at {
                self.collect();
                collect_at = Instant::now() + COLLECT_EVERY;
            }
            if Instant::now() >= mend_at {
                self.mend();
                mend_at = Instant::now() + MEND_EVERY;
            }
            self.metrics.turned(start.elapsed());
            self.metrics.alive();
        }
    }

    /// Makes the kernel enforce what should be in force, as far as that can be done now. `None` if it cannot even
    /// be asked.
    pub fn pass(&mut self) -> Option<Outcome> {
        self.shaping.begin();
        self.is_unfinished = false;
        let enforced = self.enforced()?;
        self.heed_endings(Instant::now());
        self.desire();
        self.note_unassigned(&enforced, Instant::now());
        self.look_into_pods();
        self.decide_holds(&enforced);
        self.desired.annotated = match self.heeds_annotations {
            true => annotated(&self.selected, &self.desired),
            false => Some(BTreeMap::new()),
        };
        self.count_room(&enforced);
        let known = Known {
            until_end: &|uid| self.until_end(uid),
            is_left_alone: &|uid| self.is_left_alone(uid),
            is_in_older: &|uid| {
                let cgroup = self.cgroups.pods.get(uid).map(|cgroup| cgroup.id);
                self.older.get(uid).copied().is_some_and(|id| cgroup == Some(id))
            },
            is_new_of_cluster: &|uid, wanted| {
                self.in_force_of_cluster.get(uid).is_some_and(|in_force| in_force != wanted)
            },
        };
        let operations =
            plan(&self.desired, &self.held, &enforced, &self.datapath.shaped(), &self.cgroups, known);
        self.remember_cluster(&enforced, &operations);
        let operations = self.within_reason(operations);
        let enforced = if operations.is_empty() {
            enforced
        } else {
            // Who is let go of is the node's before, and who is new after.
            self.part(&operations);
            self.perform_all(&operations);
            self.part(&[]);
            self.enforced()?
        };
        self.cover_all(&enforced);
        self.admit(&enforced);
        self.retire_older();
        self.failures.retain(|uid, _| self.desired.pods.contains_key(uid));
        let Reconciler { enforcing, failures, .. } = self;
        enforcing.retain(|uid| failures.contains_key(uid));
        self.unsettled.retain(|uid| enforced.iter().any(|pod| pod.uid == *uid));
        self.unsettled_until.retain(|uid, _| self.unsettled.contains(uid));
        self.unshaped.retain(|uid, _| self.desired.limits(uid).is_some());
        let Reconciler { shaping, unshaped, .. } = self;
        shaping.retain(|uid| unshaped.contains_key(uid));
        let is_known = |uid: &String| self.desired.pods.contains_key(uid) || self.held.contains_key(uid);
        let has_programs = |uid: &str| enforced.iter().any(|pod| pod.uid == uid);
        self.wiring.retain(has_programs, Instant::now());
        self.unfound.retain(has_programs);
        self.told_uncovered.retain(is_known);
        self.told_unheld.retain(is_known);
        self.backstops.retain(is_known);
        self.limits.retain(|uid| enforced.iter().any(|pod| pod.uid == uid));
        self.selected.retain(|uid| self.cgroups.pods.contains_key(uid));
        self.timeline
            .retain(|uid| self.cgroups.pods.contains_key(uid) || self.desired.pods.contains_key(uid));
        if let Ok(counters) = self.datapath.counters() {
            self.metrics.datapath(counters);
            self.limits.count(&counters, Instant::now());
        }
        if let Ok(counts) = self.datapath.shaped_counts() {
            self.metrics.shaping(self.named(counts));
        }
        let enforced = enforced.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        let now = Instant::now();
        let findings = Findings {
            desired: &self.desired,
            enforced: &enforced,
            cgroups: &self.cgroups,
            held: &self.held,
            let_go: self.holds.let_go(),
            limits: &self.limits.reached(now),
            limits_of_pods: &self.limits.reached_of_pods(now),
            failures: &self.failures,
            shaped: &self.datapath.shaped().into_iter().map(|pod| (pod.uid.clone(), pod)).collect(),
            unshaped: &self.unshaped,
            unfound: &self.unfound.told,
            boot_id: self.boot_id.as_deref(),
        };
        Some(Outcome {
            state: AgentState {
                awaited: self.awaited(),
                unwatched: self.unwatched.values().cloned().collect(),
                ..state(&self.inventory, findings)
            },
            pods: explainers(&self.desired, &enforced),
            reports: reports(&self.inventory, findings),
            notices: notices(findings),
        })
    }

    fn enforced(&mut self) -> Option<Vec<EnforcedPod>> {
        match self.datapath.enforced() {
            Ok(enforced) => {
                self.told_unknown = false;
                Some(enforced)
            }
            Err(error) => {
                // Once, not every second.
                if !std::mem::replace(&mut self.told_unknown, true) {
                    tracing::error!(
                        error = causes(&error),
                        "cannot read what is in force; what is enforced stays, and nothing new can be"
                    );
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
