//! Tells of pods' cgroups the moment they appear, so that a pod is enforced before its first container runs.

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use inotify::{EventMask, Inotify, WatchMask};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::os::fd::AsFd;

use super::{
    Place, PodCgroup, PodCgroups, classify,
    directories::{Directories, Follower},
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
        Follower::new(self.inotify.watches(), self.directories.clone())
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
        self.directories.try_again();
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
                Err(error) => self.directories.with(|watched| {
                    watched.refuse(directory, &error, "pods in it are found with a delay of seconds");
                }),
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

#[cfg(test)]
mod tests {
    use std::{
        fs::{create_dir, create_dir_all, remove_dir},
        path::Path,
    };

    use super::*;
    use crate::testing::warnings;

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

    /// As where watches are used up: a file cannot be watched as a directory.
    #[test]
    fn what_cannot_be_watched_is_told_once_and_tried_again_with_the_next_scan() {
        let root = tempfile::tempdir().unwrap();
        let [pod, class] = ["pod", "class"].map(|name| root.path().join(name));
        let (mut watch, _) = started(root.path(), Duration::from_secs(3600));
        let mut follower = watch.follower();
        let refuse = |watch: &mut CgroupWatch, follower: &mut Follower| {
            for path in [&pod, &class] {
                std::fs::write(path, "").unwrap();
            }
            let told = warnings(|| {
                for _ in 0..3 {
                    watch.rescan();
                    watch.watch(std::slice::from_ref(&class));
                    for _ in 0..100 {
                        follower.follow(&pod);
                    }
                }
            });
            assert_eq!(told.len(), 2, "{told:?}");
            assert!(told[0].contains("pods in it") && told[1].contains("new containers"), "{told:?}");
            for path in [&pod, &class] {
                std::fs::remove_file(path).unwrap();
            }
        };
        refuse(&mut watch, &mut follower);
        create_dir(&pod).unwrap();
        let is_followed = |watch: &CgroupWatch| {
            watch.directories.with(|watched| watched.known.values().any(|known| *known == pod))
        };
        follower.follow(&pod);
        assert!(!is_followed(&watch), "not before the next scan");
        watch.rescan();
        follower.follow(&pod);
        assert!(is_followed(&watch));
        remove_dir(&pod).unwrap();
        watch.read().unwrap();
        watch.rescan();
        refuse(&mut watch, &mut follower);
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
