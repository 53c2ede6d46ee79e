//! Pods that were free until a short time ago: what still arrives may be an answer to what they sent then.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use l7egg_ebpf_common::abi::{SubjectState, WAS_FREE};

use super::Kernel;
use super::error::kernel;
use crate::cgroup::is_populated;
use crate::datapath::DatapathError;

/// So long an answer may take: conntrack and NAT forget what a pod has sent no later, where nothing arrives
/// (`net.netfilter.nf_conntrack_udp_timeout_stream`, 120 s).
const SHORT: Duration = Duration::from_secs(180);

/// Those subjects, and since when they are not free.
#[derive(Debug, Default)]
pub struct WereFree(BTreeMap<u32, Instant>);

impl WereFree {
    /// One is not free from now on.
    pub fn insert(&mut self, subject: u32, now: Instant) {
        self.0.insert(subject, now);
    }

    /// One is as another, of which it is a part.
    pub fn inherit(&mut self, subject: u32, from: u32) {
        if let Some(since) = self.0.get(&from).copied() {
            let own = self.0.entry(subject).or_insert(since);
            *own = since.max(*own);
        }
    }

    /// One is no more.
    pub fn remove(&mut self, subject: u32) {
        self.0.remove(&subject);
    }

    /// The flag of a subject's state.
    pub fn flag(&self, subject: u32) -> u32 {
        if self.0.contains_key(&subject) { WAS_FREE } else { 0 }
    }

    /// Takes out those for which that was long ago.
    fn take_over(&mut self, now: Instant) -> Vec<u32> {
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= SHORT;
        let over = self.0.iter().filter(|(_, since)| is_over(since)).map(|(subject, _)| *subject).collect();
        self.0.retain(|_, since| !is_over(since));
        over
    }
}

impl Kernel {
    /// Notes it of a pod that the first programs are attached for. One in which nothing runs yet has sent nothing, nor one that the gate
    /// keeps waiting, and what another version's programs were attached for was not free.
    pub(super) fn note_freedom(&mut self, uid: &str, cgroup: &Path, subject: u32) {
        let waits = || fs::metadata(cgroup).is_ok_and(|directory| self.gate.is_closed_to(directory.ino()));
        if !self.older.knows(uid) && is_populated(cgroup) && !waits() {
            self.were_free.insert(subject, Instant::now());
        }
    }

    /// From now on what arrives for those that were free a while ago is what it looks like.
    pub(super) fn forget_freedom(&mut self, now: Instant) -> Result<(), DatapathError> {
        for subject in self.were_free.take_over(now) {
            let what = || kernel(format!("the state of subject {subject}"));
            let state = self.maps.subjects.get(&subject, 0).map_err(what())?;
            if state.flags & WAS_FREE != 0 {
                let flags = state.flags & !WAS_FREE;
                self.maps.set_state(subject, SubjectState { flags, ..state }).map_err(what())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_after_a_while_also_for_what_is_a_part_of_it() {
        let (mut were_free, start) = (WereFree::default(), Instant::now());
        were_free.insert(1, start);
        were_free.inherit(2, 1);
        were_free.inherit(3, 9);
        were_free.insert(4, start + Duration::from_secs(60));
        assert_eq!([1, 2, 3, 4].map(|subject| were_free.flag(subject) != 0), [true, true, false, true]);
        assert!(were_free.take_over(start + Duration::from_secs(179)).is_empty());
        assert_eq!(were_free.take_over(start + SHORT), [1, 2]);
        assert_eq!([1, 4].map(|subject| were_free.flag(subject) != 0), [false, true]);
    }
}
