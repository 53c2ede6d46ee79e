//! Which new pods are held, so that nothing leaves them before their policy is in force.
//!
//! A pod is *new* from when its cgroup appears until a policy is in force for it, it has turned out that no Egg selects
//! it, or it was let go. Only new pods are held: one that ran freely is not cut off by what comes later.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use l7egg_crds::Mode;
use l7egg_policy::name_some;

use crate::{
    cgroup::PodCgroups,
    datapath::{Digest, EnforcedPod},
    desired::{Desired, Failure, UNREADABLE},
    selected::{Selected, Verdict},
};

/// Reason of a pod that is held.
pub const HELD: &str = "Held";
/// Reason of a pod that was held for as long as the settings allow.
pub const LET_GO: &str = "LetGo";

/// A pod that is held for longer than this is worth an event.
const SOON: Duration = Duration::from_secs(2);
/// A pod is new for at least so long: its Egg may be written right after it, or told later.
const NEW_FOR: Duration = Duration::from_secs(10);
/// The API server usually tells of a pod as soon as it tells the kubelet. After so long it is late, and the pod's first container may
/// begin before it does: that takes the runtime a tenth of a second at least.
const TOLD_WITHIN: Duration = Duration::from_millis(50);
/// So long a pod's processes must have been in the host's network: a process that is just being started is there as well.
const STARTED: Duration = Duration::from_secs(1);

/// Whether and how long pods are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldSettings {
    /// Never.
    Never,
    /// Those that an Egg selects, and those of which the API server has not told in time, for at most so long.
    AtMost(Duration),
    /// Until it is known what is to be in force for them. Also those that an agent finds running when it starts.
    Strict,
}

/// A pod that is to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPod {
    /// Its namespace and name, where they are known.
    pub pod: Option<(String, String)>,
    /// What it waits for, for people.
    pub message: String,
    /// Whether it has waited for longer than pods usually do.
    pub long: bool,
}

/// A pod that was let go although no policy is in force for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetGo {
    /// Its namespace and name, where they are known.
    pub pod: Option<(String, String)>,
    /// Why, and what is to be done.
    pub message: String,
}

/// What a decision rests on.
pub struct View<'a> {
    /// What should be in force.
    pub desired: &'a Desired,
    /// What is.
    pub enforced: &'a [EnforcedPod],
    /// Where pods' cgroups are.
    pub cgroups: &'a PodCgroups,
    /// Whom Eggs select.
    pub selected: &'a Selected,
    /// What the kernel refused, by uid.
    pub failures: &'a BTreeMap<String, Failure>,
    /// Whether the processes of a cgroup are in the host's network.
    pub is_on_host_network: &'a dyn Fn(&Path) -> bool,
}

/// The new pods, and those that were let go.
#[derive(Debug)]
pub struct Holds {
    settings: HoldSettings,
    /// Ids of the cgroups that were seen, by uid of the pod.
    seen: BTreeMap<String, u64>,
    new: BTreeMap<String, New>,
    let_go: BTreeMap<String, LetGo>,
    has_scanned: bool,
    /// When it was last decided.
    decided: Option<Instant>,
}

#[derive(Debug)]
struct New {
    since: Instant,
    held_since: Option<Instant>,
    /// It ran before this agent did.
    ran_before: bool,
    on_host_since: Option<Instant>,
}

/// What is to become of a new pod.
enum Decision {
    Hold(HeldPod),
    /// Not held now; that may change.
    Wait,
    /// It is not new any more.
    Done,
    /// It has been held for long enough.
    LetGo(LetGo),
}

impl Holds {
    /// Nobody is held yet.
    #[must_use]
    pub fn new(settings: HoldSettings) -> Self {
        Holds {
            settings,
            seen: BTreeMap::new(),
            new: BTreeMap::new(),
            let_go: BTreeMap::new(),
            has_scanned: false,
            decided: None,
        }
    }

    /// A pod's cgroup is there, or an earlier agent held the pod.
    pub fn appeared(&mut self, uid: &str, cgroup_id: u64, now: Instant) {
        self.see(uid, cgroup_id, false, now);
    }

    /// How pods are held.
    #[must_use]
    pub fn settings(&self) -> HoldSettings {
        self.settings
    }

    /// These are all cgroups. Pods that only the first look finds ran before, unless something has held them so far.
    pub fn scanned(&mut self, cgroups: &PodCgroups, waits: &dyn Fn(u64) -> bool, now: Instant) {
        let is_first = !std::mem::replace(&mut self.has_scanned, true);
        self.seen.retain(|uid, _| !cgroups.complete || cgroups.pods.contains_key(uid));
        for (uid, cgroup) in &cgroups.pods {
            self.see(uid, cgroup.id, is_first && !waits(cgroup.id), now);
        }
    }

    /// Whether nothing has been decided yet about a pod that did not run before.
    #[must_use]
    pub fn is_new(&self, uid: &str) -> bool {
        self.new.get(uid).is_some_and(|pod| !pod.ran_before)
    }

    /// The pods that were let go and still have no policy, by uid.
    #[must_use]
    pub fn let_go(&self) -> &BTreeMap<String, LetGo> {
        &self.let_go
    }

    /// When next a new pod is to be decided about, whatever else comes.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let is_due = |at: &Instant| self.decided.is_none_or(|decided| *at > decided);
        self.new.values().map(|pod| pod.since + TOLD_WITHIN).filter(is_due).min()
    }

    /// The pods that are to be held from now on, by uid, and the uids of those that are let go with this.
    pub fn decide(&mut self, view: &View<'_>, now: Instant) -> (BTreeMap<String, HeldPod>, Vec<String>) {
        self.decided = Some(now);
        let (mut held, mut released) = (BTreeMap::new(), Vec::new());
        let is_gone = |uid: &str| view.cgroups.complete && !view.cgroups.pods.contains_key(uid);
        let Holds { settings, new, let_go, .. } = self;
        new.retain(|uid, pod| match view.decide(*settings, uid, pod, now) {
            _ if is_gone(uid) => false,
            Decision::Hold(why) => held.insert(uid.clone(), why).is_none(),
            Decision::Wait => true,
            Decision::Done => false,
            Decision::LetGo(why) => {
                let_go.insert(uid.clone(), why);
                released.push(uid.clone());
                false
            }
        });
        let_go.retain(|uid, _| {
            let has_policy = view.now(uid).is_some_and(|now| now.policy != NO_POLICY);
            !is_gone(uid) && !has_policy && view.selected.verdict(uid) != Verdict::Free
        });
        (held, released)
    }

    fn see(&mut self, uid: &str, cgroup_id: u64, ran_before: bool, now: Instant) {
        if self.seen.insert(uid.to_owned(), cgroup_id) == Some(cgroup_id) || is_static(uid) {
            return;
        }
        let is_candidate = match self.settings {
            HoldSettings::Never => false,
            HoldSettings::AtMost(_) => !ran_before,
            HoldSettings::Strict => true,
        };
        if is_candidate {
            self.new.insert(
                uid.to_owned(),
                New { since: now, held_since: None, ran_before, on_host_since: None },
            );
        }
    }
}

impl View<'_> {
    fn decide(&self, settings: HoldSettings, uid: &str, pod: &mut New, now: Instant) -> Decision {
        let decision = self.judge(settings, uid, pod, now);
        match decision {
            Decision::Hold(_) => {
                pod.held_since.get_or_insert(now);
            }
            _ => pod.held_since = None,
        }
        decision
    }

    fn judge(&self, settings: HoldSettings, uid: &str, pod: &mut New, now: Instant) -> Decision {
        let in_force = self.now(uid);
        if in_force.is_some_and(|now| now.policy != NO_POLICY) {
            return Decision::Done;
        }
        let held_for = pod.held_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let desired = self.desired.pods.get(uid);
        if desired.is_some_and(|desired| desired.host_network) {
            return Decision::Done;
        }
        if let Some(desired) = desired
            && let Some(policy) = desired.in_force_policy()
        {
            return match self.failures.get(uid) {
                // What is denied when something is full are new pods, for as long as it is.
                Some(failure) if !pod.ran_before && !policy.enforcement.is_nothing() => {
                    let message = format!("{}; until then nothing may leave the pod", failure.message);
                    let pod = Some((desired.namespace.clone(), desired.name.clone()));
                    Decision::Hold(HeldPod { pod, message, long: held_for >= SOON })
                }
                // It is put in force by this pass.
                _ => Decision::Wait,
            };
        }
        // Its Eggs cannot be enforced, not even in part.
        if let Some(desired) = desired
            && let Err(failure) = &desired.policy
            && !pod.ran_before
        {
            let of = Some((desired.namespace.clone(), desired.name.clone()));
            // What cannot be read may be from an operator that is newer than this agent.
            if failure.reason == UNREADABLE {
                return bounded(settings, held_for, of, &failure.message);
            }
            if desired.explainer.eggs.iter().any(|egg| egg.spec.mode == Mode::Enforce) {
                let message = format!("{}; until then nothing may leave the pod", failure.message);
                return Decision::Hold(HeldPod { pod: of, message, long: held_for >= SOON });
            }
        }
        // Before all assignments of the node are known, one that runs may well have its own.
        if pod.ran_before && !(self.selected.is_complete() && self.desired.knows_all_pods) {
            return Decision::Wait;
        }
        match self.selected.verdict(uid) {
            Verdict::Free if pod.ran_before || now.saturating_duration_since(pod.since) >= NEW_FOR => {
                Decision::Done
            }
            Verdict::Free => Decision::Wait,
            Verdict::Unknown if pod.ran_before => Decision::Done,
            // Its assignment has told of it, and that nothing is to be denied.
            Verdict::Unknown if desired.is_some() => Decision::Wait,
            Verdict::Unknown
                if settings != HoldSettings::Strict
                    && !in_force.is_some_and(|now| now.held)
                    && now.saturating_duration_since(pod.since) < TOLD_WITHIN =>
            {
                Decision::Wait
            }
            Verdict::Unknown if self.has_been_on_host_network(uid, pod, now) => Decision::Done,
            Verdict::Unknown => bounded(
                settings,
                held_for,
                None,
                "the API server has not told this node's agent about the pod or its namespace yet, nor whether an Egg selects it",
            ),
            Verdict::Selected { pod, eggs } => {
                let selects = if eggs.len() == 1 { "selects" } else { "select" };
                let what = format!(
                    "{} {selects} it, and the operator has not assigned it to its node's agent yet (does l7egg-operator run?)",
                    name_some(&eggs)
                );
                bounded(settings, held_for, Some(pod), &what)
            }
        }
    }

    fn now(&self, uid: &str) -> Option<&EnforcedPod> {
        let cgroup = self.cgroups.pods.get(uid)?;
        self.enforced.iter().find(|pod| pod.uid == uid && pod.cgroup_id == cgroup.id)
    }

    /// So long that it is no process on its way elsewhere.
    fn has_been_on_host_network(&self, uid: &str, pod: &mut New, now: Instant) -> bool {
        let is_there = self.cgroups.pods.get(uid).is_some_and(|it| (self.is_on_host_network)(&it.path));
        pod.on_host_since = is_there.then(|| pod.on_host_since.unwrap_or(now));
        pod.on_host_since.is_some_and(|since| now.saturating_duration_since(since) >= STARTED)
    }
}

fn bounded(
    settings: HoldSettings,
    held_for: Duration,
    pod: Option<(String, String)>,
    what: &str,
) -> Decision {
    let until = match settings {
        HoldSettings::Never => return Decision::Done,
        HoldSettings::AtMost(limit) if held_for >= limit => {
            let message = format!(
                "{what}; held for {} s (--hold-for), so it was let go: nothing restricts it until it is assigned",
                limit.as_secs()
            );
            return Decision::LetGo(LetGo { pod, message });
        }
        HoldSettings::AtMost(limit) => format!("for at most {} s (--hold-for)", limit.as_secs()),
        HoldSettings::Strict => "however long that takes (--strict)".to_owned(),
    };
    let message = format!("{what}; until then nothing may leave it, {until}");
    Decision::Hold(HeldPod { pod, message, long: held_for >= SOON })
}

/// The kubelet knows a static pod by 32 hexadecimal digits, which the API server's object has in an annotation only, and that
/// whoever may create pods can write. Most static pods are what a node needs to work at all.
pub fn is_static(uid: &str) -> bool {
    uid.len() == 32 && uid.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Digest of a pod that has no policy.
pub const NO_POLICY: Digest = [0; 32];

#[cfg(test)]
mod tests;
