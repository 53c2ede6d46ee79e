//! Divided pods: each container is a subject of its own, or free.
//!
//! The programs stay where they are, on the pod's cgroup, and find the container by the socket's cgroup in the map `CONTAINERS`.
//! So a pod becomes divided, or one again, by the same write of eight bytes by which its policy changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use l7egg_ebpf_common::abi::{CLASSIFIED, Container, DIVIDED, LEVEL_SHIFT, LEVELS_MAX, SubjectState};
use l7egg_policy::CompiledPolicy;

use super::error::{insertion, kernel};
use super::handover::{Pass, give};
use super::policies;
use super::programs::Maps;
use super::{Kernel, network, pods};
use crate::datapath::{ContainerPolicy, DatapathError, EnforcedContainer, Wanted};

/// Inode number of the root of a cgroup tree (fs/kernfs/dir.c).
const ROOT: u64 = 1;

/// The containers of divided pods.
#[derive(Default)]
pub struct Containers {
    by_cgroup: BTreeMap<u64, Known>,
    /// Subject ids of the pods.
    divided: BTreeSet<u32>,
}

#[derive(Clone)]
struct Known {
    name: String,
    pod: u32,
    /// 0 if it is free.
    subject: u32,
}

impl Containers {
    /// Those that an earlier agent left, of these pods. What it had prepared for a pod that is not divided is removed.
    pub fn open(
        maps: &mut Maps,
        pods: &BTreeMap<u32, u32>,
        classified: &mut BTreeSet<u32>,
    ) -> Result<Self, DatapathError> {
        let mut containers = Self::default();
        let mut unknown = Vec::new();
        let entries: Result<Vec<_>, _> = maps.containers.iter().collect();
        for (cgroup, container) in entries.map_err(kernel("reading map CONTAINERS"))? {
            let state = |subject| maps.subjects.get(&subject, 0).map_err(kernel("reading map SUBJECTS"));
            if !pods.contains_key(&container.pod) || state(container.pod)?.flags & DIVIDED == 0 {
                unknown.push((cgroup, container.subject));
                continue;
            }
            if container.subject != 0 && state(container.subject)?.flags & CLASSIFIED != 0 {
                classified.insert(container.subject);
            }
            containers.divided.insert(container.pod);
            let name = name_of(&container);
            let known = Known { name, pod: container.pod, subject: container.subject };
            containers.by_cgroup.insert(cgroup, known);
        }
        for (cgroup, subject) in unknown {
            let _ = maps.containers.remove(&cgroup);
            if subject != 0 {
                maps.set_state(subject, SubjectState::default()).map_err(kernel("writing map SUBJECTS"))?;
            }
        }
        for pod in pods.keys() {
            let state = maps.subjects.get(pod, 0).map_err(kernel("reading map SUBJECTS"))?;
            if state.flags & DIVIDED != 0 {
                containers.divided.insert(*pod);
            }
        }
        Ok(containers)
    }

    /// Subject ids of all that are not free.
    pub fn subjects(&self) -> impl Iterator<Item = u32> {
        self.by_cgroup.values().map(|known| known.subject).filter(|subject| *subject != 0)
    }

    /// Subject id of the container with this cgroup; none if it is free, or not this pod's.
    pub fn at(&self, cgroup: &Path, pod: u32) -> Option<u32> {
        let known = self.by_cgroup.get(&fs::metadata(cgroup).ok()?.ino())?;
        (known.pod == pod && known.subject != 0).then_some(known.subject)
    }

    fn of(&self, pod: u32) -> impl Iterator<Item = (&u64, &Known)> {
        self.by_cgroup.iter().filter(move |(_, known)| known.pod == pod)
    }
}

impl Kernel {
    /// The containers of a pod, if it is divided.
    pub(super) fn enforced_containers(&self, pod: u32) -> Option<BTreeMap<u64, EnforcedContainer>> {
        if !self.containers.divided.contains(&pod) {
            return None;
        }
        let one = |(cgroup, known): (&u64, &Known)| {
            let policy = self.in_force.get(&known.subject).filter(|_| known.subject != 0);
            let policy = policy.map(|id| self.policies.digest(*id).unwrap_or_default());
            let container = EnforcedContainer { name: known.name.clone(), subject: known.subject, policy };
            (*cgroup, container)
        };
        Some(self.containers.of(pod).map(one).collect())
    }

    pub(super) fn divide_pod(
        &mut self,
        uid: &str,
        cgroup: &Path,
        rest: &CompiledPolicy,
        wanted: &[ContainerPolicy],
    ) -> Result<(), DatapathError> {
        // Whatever may fail for want of room comes first.
        let rest_id = self.install(rest, &BTreeSet::new())?;
        let mut pending = BTreeSet::from([rest_id]);
        for container in wanted {
            if let Wanted::Policy(policy) = &container.wanted {
                pending.insert(self.install(policy, &pending)?);
            }
        }
        let known = self.pods.get(uid).cloned();
        let pod = match &known {
            Some(pod) => pod.subject,
            None => self.free_subject()?,
        };
        let is_new = !self.containers.divided.contains(&pod);
        if known.is_none() {
            self.note_freedom(uid, cgroup, pod);
        }
        let paths = self.paths(uid, cgroup)?;
        // Until the pod is divided, nobody asks for its containers.
        self.in_force.entry(pod).or_insert(0);
        if is_new {
            self.older.take_over(uid, cgroup, pod, &mut self.maps);
        }
        // One that cannot be entered sends nothing, and keeps none of the others from what it should be.
        let mut result = Ok(());
        for container in wanted {
            result = result.and(self.contain(pod, container, paths, is_new, &pending));
        }
        if is_new && result.is_err() {
            self.give_up(pod, known.is_none())?;
            return result;
        }
        if is_new {
            self.scatter(pod, Pass::Before)?;
        }
        let level = level(cgroup) << LEVEL_SHIFT;
        self.switch(pod, rest_id, policies::flags(rest), paths | DIVIDED | level)?;
        self.containers.divided.insert(pod);
        if is_new {
            self.scatter(pod, Pass::After)?;
        }
        let cgroups: BTreeSet<u64> = wanted.iter().map(|container| container.cgroup).collect();
        self.forget(pod, |cgroup| !cgroups.contains(cgroup))?;
        let pins = self.pins(uid);
        match pods::attach(&pins, uid, cgroup, pod, &self.programs, &mut self.maps) {
            Ok(attached) => {
                self.pods.insert(uid.into(), attached);
                result
            }
            Err(error) => {
                if known.is_none() {
                    pods::remove_pins(&pins);
                    self.give_up(pod, true)?;
                }
                Err(error)
            }
        }
    }

    /// Forgets what was prepared for a pod, and a new one itself.
    fn give_up(&mut self, pod: u32, is_unknown: bool) -> Result<(), DatapathError> {
        self.unite(pod)?;
        if is_unknown {
            self.in_force.remove(&pod);
            self.were_free.remove(pod);
            self.released.insert(pod);
            // What was taken over from another version is not to be another pod's that gets this id.
            network::forget(&mut self.maps, pod)?;
        }
        Ok(())
    }

    /// Gives what a pod's containers remember to the pod, which is about to be one again.
    pub(super) fn gather(&mut self, pod: u32, pass: Pass) -> Result<(), DatapathError> {
        if !self.containers.divided.contains(&pod) {
            return Ok(());
        }
        let subjects: BTreeSet<u32> = self.subjects_of(pod);
        give(&mut self.maps, &subjects, &BTreeSet::from([pod]), pass)
    }

    /// Forgets the containers of a pod, which is one again or is let go.
    pub(super) fn unite(&mut self, pod: u32) -> Result<(), DatapathError> {
        self.containers.divided.remove(&pod);
        self.forget(pod, |_| true)
    }

    /// Gives what a pod remembers to its containers.
    pub(super) fn scatter(&mut self, pod: u32, pass: Pass) -> Result<(), DatapathError> {
        let subjects = self.subjects_of(pod);
        give(&mut self.maps, &BTreeSet::from([pod]), &subjects, pass)
    }

    /// Whether one of a divided pod's containers is free.
    pub(super) fn has_free_container(&self, pod: u32) -> bool {
        self.containers.of(pod).any(|(_, known)| known.subject == 0)
    }

    pub(super) fn subjects_of(&self, pod: u32) -> BTreeSet<u32> {
        self.containers.of(pod).map(|(_, known)| known.subject).filter(|subject| *subject != 0).collect()
    }

    /// Makes one container what it should be. `inherits`: the pod was one until now, and what is known of its connections is known
    /// of its containers'. `pending` are the policies that are written for them.
    fn contain(
        &mut self,
        pod: u32,
        container: &ContainerPolicy,
        flags: u32,
        inherits: bool,
        pending: &BTreeSet<u32>,
    ) -> Result<(), DatapathError> {
        let before = self.containers.by_cgroup.get(&container.cgroup).filter(|known| known.pod == pod);
        let was_free = before.is_some_and(|known| known.subject == 0);
        let before = before.map_or(0, |known| known.subject);
        let subject = match &container.wanted {
            Wanted::AsBefore => return Ok(()),
            Wanted::Free => 0,
            Wanted::Policy(policy) => {
                let subject = if before == 0 { self.free_subject()? } else { before };
                if inherits && self.classified.contains(&pod) {
                    self.classified.insert(subject);
                }
                match was_free {
                    true => self.were_free.insert(subject, Instant::now()),
                    false => self.were_free.inherit(subject, pod),
                }
                let id = self.install(policy, pending)?;
                self.switch(subject, id, policies::flags(policy), flags)?;
                subject
            }
        };
        let entry = entry(subject, pod, &container.name);
        self.maps
            .containers
            .insert(container.cgroup, entry, 0)
            .map_err(|error| insertion("CONTAINERS", error))?;
        let known = Known { name: container.name.clone(), pod, subject };
        self.containers.by_cgroup.insert(container.cgroup, known);
        self.maps.begin_generation().map_err(kernel("writing map GENERATION"))?;
        if before != 0 && subject == 0 {
            self.release_subject(before);
        }
        Ok(())
    }

    fn forget(&mut self, pod: u32, is_over: impl Fn(&u64) -> bool) -> Result<(), DatapathError> {
        let over: Vec<u64> =
            self.containers.of(pod).map(|(cgroup, _)| *cgroup).filter(|cgroup| is_over(cgroup)).collect();
        for cgroup in over {
            let _ = self.maps.containers.remove(&cgroup);
            if let Some(known) = self.containers.by_cgroup.remove(&cgroup)
                && known.subject != 0
            {
                self.release_subject(known.subject);
            }
        }
        Ok(())
    }

    /// As that of a pod, its state is cleared later.
    fn release_subject(&mut self, subject: u32) {
        self.classified.remove(&subject);
        self.were_free.remove(subject);
        self.let_go.insert(subject);
        self.released.insert(subject);
    }
}

/// The level of the cgroups below this one, or 0 if the root of the tree is not to be seen from here.
fn level(cgroup: &Path) -> u32 {
    let Ok(device) = fs::metadata(cgroup).map(|found| found.dev()) else { return 0 };
    for (depth, directory) in (1..LEVELS_MAX).zip(cgroup.ancestors()) {
        match fs::metadata(directory) {
            Ok(found) if found.dev() == device && found.ino() == ROOT => return depth,
            Ok(found) if found.dev() == device => {}
            _ => return 0,
        }
    }
    0
}

fn entry(subject: u32, pod: u32, name: &str) -> Container {
    let mut bytes = [0; 64];
    // Names of containers are DNS labels, of at most 63 bytes.
    let len = name.len().min(bytes.len());
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    Container { subject, pod, name: bytes }
}

fn name_of(container: &Container) -> String {
    let end = container.name.iter().position(|byte| *byte == 0).unwrap_or(container.name.len());
    String::from_utf8_lossy(&container.name[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_map() {
        assert_eq!(name_of(&entry(1, 2, "app")), "app");
        let longest = "a".repeat(63);
        assert_eq!(name_of(&entry(1, 2, &longest)), longest);
    }

    #[test]
    fn a_directory_that_is_no_cgroup_has_no_level() {
        assert_eq!(level(tempfile::tempdir().unwrap().path()), 0);
        assert_eq!(level(Path::new("/none")), 0);
    }
}
