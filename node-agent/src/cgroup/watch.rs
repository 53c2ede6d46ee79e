//! Tells of pods' cgroups the moment they appear, so that a pod is enforced before its first container runs.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::os::fd::AsFd;

use super::{
    Place, PodCgroup, PodCgroups, classify,
    scan::{cgroup_at, scan},
};

/// inotify(7): an event is 16 bytes and a name.
const BUFFER: usize = 64 * 1024;

/// What happened in the cgroup tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupEvent {
    /// A pod's cgroup was made.
    Appeared {
        /// Uid of the pod.
        uid: String,
        /// Its cgroup.
        cgroup: PodCgroup,
    },
    /// A directory among the pods was removed.
    Vanished {
        /// Which.
        path: PathBuf,
    },
    /// Something came or went in a pod that is followed.
    Changed,
    /// The whole tree was read again.
    Scanned(PodCgroups),
}

/// Watches cgroup trees: by inotify, and by reading all of them now and then, which finds what inotify does not
/// tell (a kubelet that starts later, a queue that overflowed).
#[derive(Debug)]
pub struct CgroupWatch {
    roots: Vec<PathBuf>,
    inotify: Inotify,
    directories: Directories,
    rescan_every: Duration,
    rescan_at: Instant,
    buffer: Vec<u8>,
}

impl CgroupWatch {
    /// A watch of the trees below `roots`. Its first [`CgroupWatch::wait`] reads them.
    ///
    /// # Errors
    /// No inotify instance can be had: `fs.inotify.max_user_instances` is used up.
    pub fn new(roots: Vec<PathBuf>, rescan_every: Duration) -> io::Result<Self> {
        Ok(CgroupWatch {
            roots,
            inotify: Inotify::init()?,
            directories: Directories::default(),
            rescan_every,
            rescan_at: Instant::now(),
            buffer: vec![0; BUFFER],
        })
    }

    /// What happened since the last call; waits until something has.
    ///
    /// # Errors
    /// inotify does not work, which no sound system shows.
    pub fn wait(&mut self) -> io::Result<Vec<CgroupEvent>> {
        loop {
            let left = self.rescan_at.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.readable(left)? {
                return Ok(self.rescan());
            }
            let events = self.read()?;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// What has pods followed.
    #[must_use]
    pub fn follower(&mut self) -> Follower {
        Follower { watches: self.inotify.watches(), directories: self.directories.clone() }
    }

    fn readable(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn rescan(&mut self) -> Vec<CgroupEvent> {
        self.rescan_at = Instant::now() + self.rescan_every;
        let roots = self.roots.clone();
        let mut scanned = scan(&roots);
        // A pod can come between the scan of its parent and the first watch of it.
        if self.watch(&scanned.parents) {
            scanned = scan(&roots);
        }
        vec![CgroupEvent::Scanned(scanned.cgroups)]
    }

    /// True if one of the directories was not watched before.
    fn watch(&mut self, directories: &[PathBuf]) -> bool {
        let mut new = false;
        for directory in directories {
            let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
            match self.inotify.watches().add(directory, mask) {
                Ok(descriptor) => new |= self.directories.insert(descriptor, directory).is_none(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(
                    directory = %directory.display(), %error,
                    "cannot watch this directory: pods in it are found with a delay of seconds; raise fs.inotify.max_user_watches"
                ),
            }
        }
        new
    }

    fn read(&mut self) -> io::Result<Vec<CgroupEvent>> {
        let mut changed = Vec::new();
        let directories = self.directories.clone();
        match self.inotify.read_events(&mut self.buffer) {
            Ok(events) => {
                for event in events {
                    if event.mask.contains(EventMask::Q_OVERFLOW) {
                        self.rescan_at = Instant::now();
                    } else if event.mask.contains(EventMask::IGNORED) {
                        directories.remove(&event.wd);
                    } else if let (Some(parent), Some(name)) = (directories.get(&event.wd), event.name) {
                        changed.push((event.mask, parent.join(name)));
                    }
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(changed.into_iter().flat_map(|(mask, path)| self.event(mask, path)).collect())
    }

    fn event(&mut self, mask: EventMask, path: PathBuf) -> Vec<CgroupEvent> {
        if path.parent().is_some_and(|parent| matches!(classify(parent), Place::Pod { .. })) {
            return vec![CgroupEvent::Changed];
        }
        if mask.contains(EventMask::DELETE) {
            return vec![CgroupEvent::Vanished { path }];
        }
        match classify(&path) {
            Place::Pod { uid } => match cgroup_at(&path) {
                Ok(cgroup) => vec![CgroupEvent::Appeared { uid, cgroup }],
                Err(_) => Vec::new(),
            },
            Place::Parent => {
                self.watch(std::slice::from_ref(&path));
                let pods = scan(&[path]).cgroups.pods;
                pods.into_iter().map(|(uid, cgroup)| CgroupEvent::Appeared { uid, cgroup }).collect()
            }
            Place::Other => Vec::new(),
        }
    }
}

/// Has the watch tell of what comes and goes in pods, too.
#[derive(Clone, Debug)]
pub struct Follower {
    watches: Watches,
    directories: Directories,
}

impl Follower {
    /// Follows a pod until its cgroup ends. May be repeated.
    pub fn follow(&mut self, pod: &Path) {
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
        let watches = &mut self.watches;
        // Added under the lock, so that its first event finds it.
        let added = self.directories.with(|directories| {
            if directories.values().any(|known| known == pod) {
                return Ok(());
            }
            watches.add(pod, mask).map(|descriptor| {
                directories.insert(descriptor, pod.to_owned());
            })
        });
        match added {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(
                directory = %pod.display(), %error,
                "cannot watch this directory: new containers of the pod are found with a delay of a second; raise fs.inotify.max_user_watches"
            ),
        }
    }
}

/// What is watched, from two threads.
#[derive(Clone, Debug, Default)]
struct Directories(Arc<Mutex<HashMap<WatchDescriptor, PathBuf>>>);

impl Directories {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<WatchDescriptor, PathBuf>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn insert(&self, descriptor: WatchDescriptor, directory: &Path) -> Option<PathBuf> {
        self.with(|directories| directories.insert(descriptor, directory.to_owned()))
    }

    fn remove(&self, descriptor: &WatchDescriptor) {
        self.with(|directories| directories.remove(descriptor));
    }

    fn get(&self, descriptor: &WatchDescriptor) -> Option<PathBuf> {
        self.with(|directories| directories.get(descriptor).cloned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, create_dir_all, remove_dir};

    use super::*;

    const UID: &str = "0f3a2b1c-1111-2222-3333-444455556666";

    fn started(root: &Path, rescan: Duration) -> (CgroupWatch, PodCgroups) {
        let mut watch = CgroupWatch::new(vec![root.to_owned()], rescan).unwrap();
        let mut cgroups = PodCgroups::default();
        watch.wait().unwrap().into_iter().for_each(|event| {
            cgroups.apply(event);
        });
        (watch, cgroups)
    }

    #[test]
    fn pods_come_and_go_within_milliseconds() {
        let root = tempfile::tempdir().unwrap();
        create_dir_all(root.path().join("kubepods/burstable")).unwrap();
        let (mut watch, mut cgroups) = started(root.path(), Duration::from_secs(3600));
        assert!(cgroups.complete && cgroups.pods.is_empty());

        let pod = root.path().join(format!("kubepods/burstable/pod{UID}"));
        create_dir(&pod).unwrap();
        let start = Instant::now();
        let events = watch.wait().unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(events.into_iter().any(|event| cgroups.apply(event)));
        assert_eq!(cgroups.pods[UID], cgroup_at(&pod).unwrap());

        remove_dir(&pod).unwrap();
        assert!(watch.wait().unwrap().into_iter().any(|event| cgroups.apply(event)));
        assert!(cgroups.pods.is_empty());
    }

    #[test]
    fn containers_of_followed_pods_come_and_go_within_milliseconds() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join(format!("kubepods/burstable/pod{UID}"));
        create_dir_all(&pod).unwrap();
        let (mut watch, _) = started(root.path(), Duration::from_secs(3600));
        let mut follower = watch.follower();
        follower.follow(&pod);
        follower.follow(&pod);
        let start = Instant::now();
        create_dir(pod.join("container")).unwrap();
        assert_eq!(watch.wait().unwrap(), [CgroupEvent::Changed]);
        remove_dir(pod.join("container")).unwrap();
        assert_eq!(watch.wait().unwrap(), [CgroupEvent::Changed]);
        remove_dir(&pod).unwrap();
        assert!(watch.wait().unwrap().contains(&CgroupEvent::Vanished { path: pod }));
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_new_class_is_watched_and_read_at_once() {
        let root = tempfile::tempdir().unwrap();
        create_dir_all(root.path().join("kubepods")).unwrap();
        let (mut watch, mut cgroups) = started(root.path(), Duration::from_secs(3600));
        create_dir_all(root.path().join(format!("kubepods/besteffort/pod{UID}"))).unwrap();
        while cgroups.pods.is_empty() {
            watch.wait().unwrap().into_iter().for_each(|event| {
                cgroups.apply(event);
            });
        }
        assert!(cgroups.pods.contains_key(UID));
    }

    #[test]
    fn a_kubelet_that_starts_later_is_found_by_the_next_scan() {
        let root = tempfile::tempdir().unwrap();
        let (mut watch, mut cgroups) = started(root.path(), Duration::from_millis(20));
        assert!(!cgroups.complete);
        create_dir_all(root.path().join(format!("later/kubepods/pod{UID}"))).unwrap();
        while !cgroups.complete {
            watch.wait().unwrap().into_iter().for_each(|event| {
                cgroups.apply(event);
            });
        }
        assert!(cgroups.pods.contains_key(UID));
    }
}
