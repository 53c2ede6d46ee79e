//! Where the pods' cgroups are.

mod path;
mod scan;
mod watch;

use std::{collections::BTreeMap, path::PathBuf};

pub use path::{Place, classify};
pub use scan::scan;
pub use watch::{CgroupEvent, CgroupWatch};

/// The cgroup of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCgroup {
    /// Its directory.
    pub path: PathBuf,
    /// Its id, which is the inode number of the directory and is not used again while the system runs.
    pub id: u64,
}

/// The cgroups of all pods that have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodCgroups {
    /// By uid of the pod. The kubelet can leave empty directories of ended pods behind: a cgroup is no proof of
    /// a live pod. Static pods appear under the hash of their configuration, not their API uid.
    pub pods: BTreeMap<String, PodCgroup>,
    /// Whether these are all: the kubelet's directory was found and all of it could be read.
    pub complete: bool,
}

impl PodCgroups {
    /// Takes in what the watch says. True if that changes anything.
    pub fn apply(&mut self, event: CgroupEvent) -> bool {
        match event {
            CgroupEvent::Scanned(found) => {
                let changed = *self != found;
                *self = found;
                changed
            }
            CgroupEvent::Appeared { uid, cgroup } => {
                self.pods.insert(uid, cgroup.clone()).as_ref() != Some(&cgroup)
            }
            CgroupEvent::Vanished { path } => {
                let before = self.pods.len();
                self.pods.retain(|_, cgroup| cgroup.path != path);
                self.pods.len() != before
            }
        }
    }
}
