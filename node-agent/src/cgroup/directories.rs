//! The directories that are watched, by whom they are asked for: the watch of all pods, and whoever follows single ones.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use inotify::{WatchDescriptor, WatchMask, Watches};

/// Has the watch tell of what comes and goes in pods, too.
#[derive(Clone, Debug)]
pub struct Follower {
    watches: Watches,
    directories: Directories,
}

impl Follower {
    pub(super) fn new(watches: Watches, directories: Directories) -> Self {
        Follower { watches, directories }
    }

    /// Follows a pod until its cgroup ends. May be repeated.
    pub fn follow(&mut self, pod: &Path) {
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
        let watches = &mut self.watches;
        // Added under the lock, so that its first event finds it.
        self.directories.with(|watched| {
            if watched.refused.contains(pod) || watched.known.values().any(|known| known == pod) {
                return;
            }
            match watches.add(pod, mask) {
                Ok(descriptor) => _ = watched.known.insert(descriptor, pod.to_owned()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => watched.refuse(
                    pod,
                    &error,
                    "new containers of the pod are found with a delay of a second",
                ),
            }
        });
    }
}

/// What is watched, and what cannot be.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) known: HashMap<WatchDescriptor, PathBuf>,
    /// Since the tree was read last.
    refused: HashSet<PathBuf>,
    /// The consequences that were told, until all can be watched again.
    told: HashSet<&'static str>,
}

impl Watched {
    /// Where watches are used up, all that is new is refused, and asked for again with each pass: told once.
    pub(super) fn refuse(&mut self, directory: &Path, error: &io::Error, consequence: &'static str) {
        self.refused.insert(directory.to_owned());
        let directory = directory.display();
        if self.told.insert(consequence) {
            tracing::warn!(
                %directory, %error,
                "cannot watch this directory, and maybe others: {consequence}; tried again every few seconds, raise fs.inotify.max_user_watches"
            );
        } else {
            tracing::debug!(%directory, %error, "cannot watch this directory either");
        }
    }
}

/// The same, from two threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Directories(Arc<Mutex<Watched>>);

impl Directories {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Watched) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was refused is not any more.
    pub(super) fn try_again(&self) {
        self.with(|watched| {
            if watched.refused.is_empty() {
                watched.told.clear();
            }
            watched.refused.clear();
        });
    }

    pub(super) fn insert(&self, descriptor: WatchDescriptor, directory: &Path) -> Option<PathBuf> {
        self.with(|watched| watched.known.insert(descriptor, directory.to_owned()))
    }

    pub(super) fn remove(&self, descriptor: &WatchDescriptor) {
        self.with(|watched| watched.known.remove(descriptor));
    }

    pub(super) fn get(&self, descriptor: &WatchDescriptor) -> Option<PathBuf> {
        self.with(|watched| watched.known.get(descriptor).cloned())
    }
}
