//! A datapath in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use l7egg_ebpf_common::abi::COUNTERS;
use l7egg_policy::CompiledPolicy;

use crate::{
    cgroup::PodCgroups,
    datapath::{
        ContainerPolicy, Counters, Cover, Datapath, DatapathError, EnforcedContainer, EnforcedPod,
        EventSource, Mended, OlderPod, Settled, ShapedCounts, ShapedPod, ToldNetwork, Wanted,
    },
    shaping::Cap,
    testing::enforced_pod,
};

/// Remembers what it was asked, and refuses what it is told to refuse.
#[derive(Debug, Default)]
pub struct FakeDatapath {
    /// What is in force.
    pub pods: BTreeMap<String, EnforcedPod>,
    /// Every call that changes something, as `enforce <uid>` or `release <uid>`.
    pub calls: Vec<String>,
    /// Every pod that was settled, and whether its policy was in force then, or that of each of its containers.
    pub settled: Vec<(String, bool)>,
    /// How often [`Datapath::collect`] was called.
    pub collected: usize,
    /// Uids of pods that have their share of what is learned.
    pub turned_away: BTreeSet<String>,
    /// Uids for which `enforce` fails, how long that takes, and how often it has.
    pub refuse: BTreeSet<String>,
    /// See above.
    pub refusing_takes: Duration,
    /// See above.
    pub refusals: usize,
    /// The caps of shaped pods.
    pub shaped: BTreeMap<String, Vec<Cap>>,
    /// Whether no pod can be shaped.
    pub refuse_shaping: bool,
    /// Cgroups of pods in the node's network.
    pub on_host_network: BTreeSet<PathBuf>,
    /// The directories of pods that the node leaves alone.
    pub left_alone: Vec<PathBuf>,
    /// Ids of the cgroups that the gate lets through, where it is closed.
    pub gate: Option<BTreeSet<u64>>,
    /// What another version left.
    pub older: Vec<OlderPod>,
    /// Whether that cannot be removed.
    pub refuse_retiring: bool,
    /// How often it was asked for.
    pub retirings: usize,
    /// Uids of pods whose programs somebody has detached.
    pub lost: BTreeSet<String>,
    /// The pods at the interfaces of the node.
    pub interfaces: BTreeMap<u32, String>,
    /// What has come before backstops, by the pod's uid.
    pub overtaken: BTreeMap<String, String>,
    /// How many backstops were looked at.
    pub looked_at: usize,
    /// So many times connections cannot be looked at.
    pub unlookable: usize,
    /// So many looks find no network.
    pub unwired: usize,
    /// Uids of pods whose sandbox has ended.
    pub without_network: BTreeSet<String>,
    /// Whether nothing at all can be read.
    pub broken: bool,
    ids: BTreeMap<PathBuf, u64>,
}

impl FakeDatapath {
    /// Tells it the ids of more cgroups.
    pub fn know(&mut self, cgroups: &PodCgroups) {
        self.ids.extend(cgroups.pods.values().map(|cgroup| (cgroup.path.clone(), cgroup.id)));
    }

    /// The calls since it was last asked.
    pub fn take_calls(&mut self) -> Vec<String> {
        std::mem::take(&mut self.calls)
    }
}

impl Datapath for FakeDatapath {
    fn enforced(&self) -> Result<Vec<EnforcedPod>, DatapathError> {
        if self.broken {
            return Err(refusal("reading the pins"));
        }
        Ok(self.pods.values().cloned().collect())
    }

    fn enforce(&mut self, uid: &str, cgroup: &Path, policy: &CompiledPolicy) -> Result<(), DatapathError> {
        let gone = || DatapathError::CgroupGone { uid: uid.to_owned(), path: cgroup.to_owned() };
        let id = *self.ids.get(cgroup).ok_or_else(gone)?;
        if self.refuse.contains(uid) {
            self.refusals += 1;
            std::thread::sleep(self.refusing_takes);
            return Err(refusal("attaching"));
        }
        self.calls.push(format!("enforce {uid}"));
        self.pods.insert(uid.to_owned(), enforced_pod(uid, id, policy.digest));
        Ok(())
    }

    fn older(&self) -> Vec<OlderPod> {
        self.older.clone()
    }

    fn retire_older(&mut self, is_wanted: &dyn Fn(&str) -> bool) -> Result<(), DatapathError> {
        self.retirings += 1;
        if self.refuse_retiring {
            return Err(refusal("removing"));
        }
        if self.older.is_empty() {
            return Ok(());
        }
        self.older.retain(|pod| is_wanted(&pod.uid));
        if self.older.is_empty() {
            self.calls.push("retire older".into());
        }
        Ok(())
    }

    fn hold(&mut self, uid: &str, cgroup: &Path) -> Result<(), DatapathError> {
        let gone = || DatapathError::CgroupGone { uid: uid.to_owned(), path: cgroup.to_owned() };
        let id = *self.ids.get(cgroup).ok_or_else(gone)?;
        self.calls.push(format!("hold {uid}"));
        let held = EnforcedPod { held: true, ..enforced_pod(uid, id, [0; 32]) };
        self.pods.entry(uid.to_owned()).or_insert(held);
        Ok(())
    }

    fn is_on_host_network(&self, cgroup: &Path) -> bool {
        self.on_host_network.contains(cgroup)
    }

    fn divide(
        &mut self,
        uid: &str,
        cgroup: &Path,
        rest: &CompiledPolicy,
        containers: &[ContainerPolicy],
    ) -> Result<(), DatapathError> {
        let before = self.pods.get(uid).and_then(|pod| pod.containers.clone()).unwrap_or_default();
        self.enforce(uid, cgroup, rest)?;
        self.calls.pop();
        let one = |(subject, container): (u32, &ContainerPolicy)| {
            let policy = match &container.wanted {
                Wanted::AsBefore => before.get(&container.cgroup).and_then(|before| before.policy),
                Wanted::Free => None,
                Wanted::Policy(policy) => Some(policy.digest),
            };
            (container.cgroup, EnforcedContainer { name: container.name.clone(), subject, policy })
        };
        let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
        self.calls.push(format!("divide {uid}: {}", names.join(" ")));
        let containers = (2..).zip(containers).map(one).collect();
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.containers = Some(containers);
        }
        Ok(())
    }

    fn settle_containers(
        &mut self,
        uid: &str,
        _pod: &Path,
        settled: &[(&Path, &CompiledPolicy)],
    ) -> Result<Settled, DatapathError> {
        let containers = self.pods.get(uid).and_then(|pod| pod.containers.as_ref());
        let is_in_force = |policy: &CompiledPolicy| {
            containers.is_some_and(|it| it.values().any(|it| it.policy == Some(policy.digest)))
        };
        let are_in_force = settled.iter().all(|(_, policy)| is_in_force(policy));
        self.settled.push((uid.to_owned(), are_in_force));
        Ok(Settled::default())
    }

    fn leave_alone(&mut self, pods: &[PathBuf]) -> Result<(), DatapathError> {
        self.left_alone = pods.to_vec();
        Ok(())
    }

    fn close_gate(&mut self, _parents: &[PathBuf], running: &[u64]) -> Result<(), DatapathError> {
        self.gate.get_or_insert_with(|| running.iter().copied().collect());
        Ok(())
    }

    fn open_gate(&mut self) -> Result<(), DatapathError> {
        self.gate = None;
        Ok(())
    }

    fn waits_at_gate(&self, cgroup_id: u64) -> bool {
        self.gate.as_ref().is_some_and(|admitted| !admitted.contains(&cgroup_id))
    }

    fn admit(&mut self, cgroup_id: u64) -> Result<(), DatapathError> {
        self.gate.iter_mut().for_each(|admitted| _ = admitted.insert(cgroup_id));
        Ok(())
    }

    fn retain_admitted(&mut self, is_there: &dyn Fn(u64) -> bool) {
        self.gate.iter_mut().for_each(|admitted| admitted.retain(|id| is_there(*id)));
    }

    fn release(&mut self, uid: &str) -> Result<(), DatapathError> {
        self.calls.push(format!("release {uid}"));
        self.pods.remove(uid);
        Ok(())
    }

    fn settle(
        &mut self,
        uid: &str,
        _cgroup: &Path,
        policy: &CompiledPolicy,
    ) -> Result<Settled, DatapathError> {
        if self.unlookable > 0 {
            self.unlookable -= 1;
            return Err(refusal("looking at connections"));
        }
        let in_force = self.pods.get(uid).is_some_and(|pod| pod.policy == policy.digest);
        self.settled.push((uid.to_owned(), in_force));
        Ok(Settled { reset: 1, ..Settled::default() })
    }

    fn shaped(&self) -> Vec<ShapedPod> {
        self.shaped
            .iter()
            .map(|(uid, caps)| ShapedPod { uid: uid.clone(), caps: Some(caps.clone()) })
            .collect()
    }

    fn shape(&mut self, uid: &str, cgroup: &Path, caps: &[Cap]) -> Result<(), DatapathError> {
        if !self.ids.contains_key(cgroup) {
            return Err(DatapathError::network_not_ready(uid));
        }
        if self.refuse_shaping {
            return Err(DatapathError::no_fq());
        }
        self.calls.push(format!("shape {uid}"));
        self.shaped.insert(uid.to_owned(), caps.to_vec());
        Ok(())
    }

    fn cover(&mut self, _uid: &str, _cgroup: &Path, _told: &ToldNetwork) -> Result<Cover, DatapathError> {
        let looked_in_vain = self.unwired > 0;
        self.unwired = self.unwired.saturating_sub(1);
        Ok(if looked_in_vain { Cover::NotYet } else { Cover::Whole })
    }

    fn has_lost_network(&self, uid: &str) -> bool {
        self.without_network.contains(uid)
    }

    fn unshape(&mut self, uid: &str, _cgroup: Option<&Path>) -> Result<(), DatapathError> {
        self.calls.push(format!("unshape {uid}"));
        self.shaped.remove(uid);
        Ok(())
    }

    fn shaped_counts(&self) -> Result<ShapedCounts, DatapathError> {
        Ok(ShapedCounts::default())
    }

    fn collect(&mut self) -> Result<BTreeSet<String>, DatapathError> {
        self.collected += 1;
        Ok(self.turned_away.clone())
    }

    fn mend(&mut self, cgroup_of: &dyn Fn(&str) -> Option<PathBuf>) -> Result<Mended, DatapathError> {
        if self.broken {
            return Err(refusal("pinning"));
        }
        let pods = std::mem::take(&mut self.lost).into_iter().filter(|uid| cgroup_of(uid).is_some());
        Ok(Mended { pods: pods.collect(), ..Mended::default() })
    }

    fn pods_at(&self, interfaces: &BTreeSet<u32>) -> BTreeSet<String> {
        interfaces.iter().filter_map(|interface| self.interfaces.get(interface)).cloned().collect()
    }

    fn mend_backstops(&mut self, uids: &BTreeSet<String>) -> Mended {
        self.looked_at += uids.len();
        let overtaken = uids.iter().filter_map(|uid| self.overtaken.remove_entry(uid));
        Mended { overtaken: overtaken.collect(), ..Mended::default() }
    }

    fn counters(&self) -> Result<Counters, DatapathError> {
        Ok([7; COUNTERS as usize])
    }

    fn events(&mut self) -> Option<Box<dyn EventSource>> {
        None
    }
}

fn refusal(what: &str) -> DatapathError {
    DatapathError::Kernel { what: what.to_owned(), source: Box::new(io::Error::from_raw_os_error(1)) }
}
