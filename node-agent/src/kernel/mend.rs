//! Puts back what somebody has taken away.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use l7egg_ebpf_common::abi::{CLASSIFIED, SubjectState, WAS_FREE};

use super::Kernel;
use super::error::kernel;
use super::pins::is_gone;
use super::pods;
use super::programs::HOOKS;
use crate::causes::causes;
use crate::datapath::{DatapathError, Mended};

impl Kernel {
    /// See [`crate::datapath::Datapath::mend`].
    pub(super) fn mend_pins(
        &mut self,
        cgroup_of: &dyn Fn(&str) -> Option<PathBuf>,
    ) -> Result<Mended, DatapathError> {
        let maps = self.pinned.put_maps_back();
        let mut mended = Mended::default();
        let lost: Vec<String> = self.lost_pods().cloned().collect();
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
        for uid in self.pinned.lost_backstops(self.pods.keys()) {
            self.networks.forget_cover(&uid);
            mended.backstops.insert(uid);
        }
        self.gate.look();
        mended.maps = maps;
        Ok(mended)
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
