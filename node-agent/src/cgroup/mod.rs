//! Where the pods' cgroups are.

mod containers;
mod directories;
mod path;
mod scan;
mod watch;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

pub use containers::Container;
pub use directories::Follower;
pub use path::{Place, classify, is_of_runtime};
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
    /// The cgroups below those of pods that are divided, by uid of the pod and by id: see [`PodCgroups::look_into`].
    pub containers: BTreeMap<String, BTreeMap<u64, Container>>,
    /// Whether these are all: the kubelet's directory was found and all of it could be read.
    pub complete: bool,
    /// The directories that hold pods and nothing else, the outermost ones.
    pub parents: Vec<PathBuf>,
    /// Those of them with processes. A kubelet that was given another cgroup driver or root leaves its old directories behind.
    pub in_use: Vec<PathBuf>,
}

/// Whether there are processes in a cgroup or below it; so it is also where that is not known.
#[must_use]
pub fn is_populated(cgroup: &Path) -> bool {
    let events = fs::read_to_string(cgroup.join("cgroup.events"));
    !events.is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
}

/// Whether there are cgroups in a pod's, those of its sandbox and containers; so it is also where that is not known.
#[must_use]
pub fn has_children(pod: &Path) -> bool {
    let is_directory =
        |entry: io::Result<fs::DirEntry>| entry.and_then(|it| it.file_type()).is_ok_and(|it| it.is_dir());
    fs::read_dir(pod).map_or(true, |mut entries| entries.any(is_directory))
}

impl PodCgroups {
    /// Looks at the containers of these pods only, and forgets others. `known` says the names that were found out before, by uid and
    /// id. True if something is new.
    pub fn look_into<'a>(
        &mut self,
        uids: impl Iterator<Item = &'a str>,
        known: impl Fn(&str, u64) -> Option<String>,
    ) -> bool {
        let mut before = std::mem::take(&mut self.containers);
        let mut changed = false;
        for uid in uids {
            let Some(pod) = self.pods.get(uid) else { continue };
            let mut containers = before.remove(uid).unwrap_or_default();
            changed |= containers::look(&pod.path, uid, |id| known(uid, id), &mut containers);
            self.containers.insert(uid.to_owned(), containers);
        }
        changed || !before.is_empty()
    }

    /// The containers of a pod that is looked into.
    #[must_use]
    pub fn containers_of(&self, uid: &str) -> &BTreeMap<u64, Container> {
        static NONE: BTreeMap<u64, Container> = BTreeMap::new();
        self.containers.get(uid).unwrap_or(&NONE)
    }

    /// Whether some container is in the making, so that its name is to be found out soon.
    #[must_use]
    pub fn awaits_names(&self) -> bool {
        self.containers.values().flat_map(BTreeMap::values).any(Container::is_young)
    }

    /// Takes in what the watch says. True if that changes anything.
    pub fn apply(&mut self, event: CgroupEvent) -> bool {
        match event {
            CgroupEvent::Scanned(found) => {
                let containers = std::mem::take(&mut self.containers);
                let changed = *self != found;
                *self = PodCgroups { containers, ..found };
                changed
            }
            CgroupEvent::Changed => true,
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
