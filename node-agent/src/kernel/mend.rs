//! Puts back what somebody has taken away.

use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use l7egg_ebpf_common::abi::{CLASSIFIED, SubjectState, WAS_FREE};

use super::Kernel;
use super::error::kernel;
use super::network::Damage;
use super::pins::is_gone;
use super::pods;
use super::programs::HOOKS;
use crate::causes::causes;
use crate::datapath::{DatapathError, Mended};

/// So many pods' links are looked at each time: all of a full node's within half a minute, at some ten microseconds a pod.
const LOOKED_AT: usize = 20;

impl Kernel {
    /// See [`crate::datapath::Datapath::mend`].
    pub(super) fn mend_pins(
        &mut self,
        cgroup_of: &dyn Fn(&str) -> Option<PathBuf>,
    ) -> Result<Mended, DatapathError> {
        let maps = self.pinned.put_maps_back();
        let mut mended = Mended::default();
        let mut lost: Vec<String> = self.lost_pods().cloned().collect();
        let looked_at = self.next_pods();
        lost.extend(looked_at.iter().filter(|uid| self.is_detached(uid, cgroup_of)).cloned());
        for uid in &lost {
            // What is in force for it is not whole, and is told to be so, until it is.
            self.pods.get_mut(uid).into_iter().for_each(|pod| pod.complete = false);
        }
        self.unmended = lost.into_iter().collect();
        // Links whose maps the next agent would not find are worse than none: it could not open them.
        let maps = maps?;
        for uid in self.unmended.clone() {
            match self.attach_again(&uid, cgroup_of(&uid)) {
                Ok(true) => {
                    self.unmended.remove(&uid);
                    mended.pods.insert(uid);
                }
                // It has ended, or has another cgroup by now, which is the reconciler's matter.
                Ok(false) | Err(DatapathError::CgroupGone { .. }) => {}
                Err(error) => _ = mended.failed.insert(uid, causes(&error)),
            }
        }
        let lost = self.pinned.lost_backstops(self.pods.keys());
        lost.iter().for_each(|uid| self.networks.forget_cover(uid));
        mended.backstops.extend(lost);
        self.look_at_backstops(&looked_at, &mut mended);
        self.gate.look();
        mended.maps = maps;
        Ok(mended)
    }

    /// Has the backstops of these pods put back where they were.
    pub(super) fn look_at_backstops<'a>(
        &mut self,
        uids: impl IntoIterator<Item = &'a String>,
        mended: &mut Mended,
    ) {
        for uid in uids {
            match self.networks.damage(uid) {
                None => continue,
                Some(Damage::Gone) => _ = mended.backstops.insert(uid.clone()),
                Some(Damage::Behind(what)) => _ = mended.overtaken.insert(uid.clone(), what),
            }
            self.networks.forget_cover(uid);
        }
    }

    /// The pods that were wholly attached and are not any more, and those that could not be attached again the last time. Of others
    /// that are not complete the reconciler knows, and does what is to be done.
    fn lost_pods(&self) -> impl Iterator<Item = &String> {
        let is_lost = |uid: &str| {
            let pins = self.pins(uid);
            HOOKS.iter().any(|hook| is_gone(&pins.join(hook.name)))
        };
        let lost = self.pods.iter().filter(move |(uid, pod)| match pod.complete {
            true => is_lost(uid),
            false => self.unmended.contains(*uid),
        });
        lost.map(|(uid, _)| uid)
    }

    /// The pods whose links themselves are looked at this time: a pin stays where somebody has detached what it is of.
    fn next_pods(&mut self) -> Vec<String> {
        let after = self.looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<String> =
            self.pods.range((after, Bound::Unbounded)).take(LOOKED_AT).map(|(uid, _)| uid.clone()).collect();
        // From the beginning again, where these were the last.
        self.looked_at = next.last().filter(|_| next.len() == LOOKED_AT).cloned();
        next
    }

    /// Whether one of a pod's links is not on the pod's cgroup any more, which is still there. Where that cannot be known nothing is
    /// concluded.
    fn is_detached(&self, uid: &str, cgroup_of: &dyn Fn(&str) -> Option<PathBuf>) -> bool {
        let Some(pod) = self.pods.get(uid).filter(|pod| pod.complete) else { return false };
        let is_elsewhere =
            |pin: &Path| matches!(pods::open_link(pin), Ok(Some((_, cgroup))) if cgroup != pod.cgroup_id);
        let pins = self.pins(uid);
        HOOKS.iter().any(|hook| is_elsewhere(&pins.join(hook.name)))
            && cgroup_of(uid)
                .and_then(|cgroup| cgroup.metadata().ok())
                .is_some_and(|it| it.ino() == pod.cgroup_id)
    }

    /// Attaches the programs to the cgroup where they were, with what is in force. False if the pod is in another one by now.
    fn attach_again(&mut self, uid: &str, cgroup: Option<PathBuf>) -> Result<bool, DatapathError> {
        let (Some(cgroup), Some(pod)) = (cgroup, self.pods.get(uid).cloned()) else { return Ok(false) };
        if !cgroup.metadata().is_ok_and(|there| there.ino() == pod.cgroup_id) {
            return Ok(false);
        }
        // What connected meanwhile is not known to the programs, no more than what did before the first policy; nor what was asked.
        for subject in std::iter::once(pod.subject).chain(self.subjects_of(pod.subject)) {
            let what = || kernel(format!("the state of subject {subject} of pod {uid}"));
            let state = self.maps.subjects.get(&subject, 0).map_err(what())?;
            let state = SubjectState { flags: state.flags & !CLASSIFIED | WAS_FREE, ..state };
            self.were_free.insert(subject, Instant::now());
            self.maps.set_state(subject, state).map_err(what())?;
            self.classified.remove(&subject);
        }
        self.reattach(uid, &cgroup, pod.subject)?;
        Ok(true)
    }

    fn reattach(&mut self, uid: &str, cgroup: &Path, subject: u32) -> Result<(), DatapathError> {
        let pod = pods::attach(&self.pins(uid), uid, cgroup, subject, &self.programs, &mut self.maps)?;
        self.pods.insert(uid.into(), pod);
        Ok(())
    }
}
