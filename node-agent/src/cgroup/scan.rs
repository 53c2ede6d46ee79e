//! A walk over the cgroup tree.

use std::{
    fs::DirEntry,
    io,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use super::{Place, PodCgroup, PodCgroups, classify, is_populated};

/// Nobody nests the kubelet's cgroup root deeper than this; services' own trees can be deeper.
const MAX_DEPTH: usize = 8;

/// What a walk found.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// The pods.
    pub cgroups: PodCgroups,
    /// The directories that pods come and go in.
    pub parents: Vec<PathBuf>,
}

/// Walks the trees below `roots`, but not into pods.
#[must_use]
pub fn scan(roots: &[PathBuf]) -> Scan {
    let mut found = Scan::default();
    found.cgroups.complete = true;
    for root in roots {
        if walk(root, MAX_DEPTH, &mut found).is_err() {
            found.cgroups.complete = false;
        }
    }
    // Where there is no kubelet there is nothing to conclude.
    found.cgroups.complete &= !found.parents.is_empty();
    let parents = &found.parents;
    let outermost = parents
        .iter()
        .filter(|path| !path.ancestors().skip(1).any(|it| parents.iter().any(|parent| parent == it)));
    found.cgroups.parents = outermost.cloned().collect();
    found.cgroups.parents.sort();
    found.cgroups.in_use = found.cgroups.parents.iter().filter(|path| is_populated(path)).cloned().collect();
    found
}

impl PodCgroups {
    /// Takes a pod's cgroup in. Of two of one pod, that with processes is meant: the other was left behind, see
    /// [`PodCgroups::in_use`]. If both have some or none, the one that was made last.
    fn add(&mut self, uid: String, cgroup: PodCgroup) {
        let rank = |cgroup: &PodCgroup| (is_populated(&cgroup.path), cgroup.id);
        match self.pods.get_mut(&uid) {
            Some(known) if rank(known) > rank(&cgroup) => {}
            Some(known) => *known = cgroup,
            None => _ = self.pods.insert(uid, cgroup),
        }
    }
}

/// The cgroup in this directory, if it still is there.
pub(super) fn cgroup_at(path: &Path) -> io::Result<PodCgroup> {
    Ok(PodCgroup { path: path.to_owned(), id: path.metadata()?.ino() })
}

fn walk(directory: &Path, depth: usize, found: &mut Scan) -> io::Result<()> {
    let place = classify(directory);
    if place == Place::Parent {
        found.parents.push(directory.to_owned());
    }
    for entry in gone_is_empty(directory.read_dir())? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path();
        let kind = classify(&path);
        // Users who have a tree of their own (systemd's user slices) can call a cgroup of theirs what they like.
        if kind != Place::Other && place == Place::Other && !is_of_kubelet(&entry) {
            tracing::debug!(directory = %path.display(), "named as a kubelet's cgroup, but not root's: left alone");
            continue;
        }
        match kind {
            Place::Pod { uid } => {
                found.cgroups.add(uid, PodCgroup { id: entry.ino(), path });
            }
            Place::Parent => walk(&path, depth, found)?,
            // Nothing else can be of interest among the pods.
            Place::Other if place == Place::Other && depth > 0 => walk(&path, depth - 1, found)?,
            Place::Other => {}
        }
    }
    Ok(())
}

/// Whether root has made it, or whoever the agent runs as.
fn is_of_kubelet(entry: &DirEntry) -> bool {
    entry.metadata().is_ok_and(|found| found.uid() == 0 || found.uid() == geteuid().as_raw())
}

/// Directories end while they are read.
fn gone_is_empty(
    read: io::Result<std::fs::ReadDir>,
) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    match read {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;

    use super::*;

    const A: &str = "0f3a2b1c-1111-2222-3333-444455556666";
    const B: &str = "aaaaaaaa-1111-2222-3333-444455556666";

    #[test]
    fn what_is_not_roots_is_no_kubelets() {
        if !geteuid().is_root() {
            println!("skipped: only root can give a directory to somebody else");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join(format!("kubepods/pod{A}"));
        let users = root.path().join("user.slice/kubepods");
        let slice = root.path().join("user.slice/kubepods-podaaaaaaaa_1111_2222_3333_444455556666.slice");
        for directory in [&own, &users.join(format!("pod{A}")), &slice] {
            create_dir_all(directory).unwrap();
        }
        for directory in [&users, &slice] {
            std::os::unix::fs::chown(directory, Some(1000), Some(1000)).unwrap();
        }
        let found = scan(&[root.path().to_owned()]);
        assert_eq!(found.parents, [root.path().join("kubepods")]);
        assert_eq!(found.cgroups.pods.len(), 1);
        assert_eq!(found.cgroups.pods[A].path, own);
    }

    #[test]
    fn finds_pods_of_all_classes_and_the_places_to_watch() {
        let root = tempfile::tempdir().unwrap();
        let kubepods = root.path().join("cluster/node1/kubepods");
        create_dir_all(kubepods.join(format!("burstable/pod{A}/container"))).unwrap();
        create_dir_all(kubepods.join(format!("pod{B}"))).unwrap();
        create_dir_all(root.path().join("system.slice/a.service")).unwrap();
        let found = scan(&[root.path().to_owned()]);
        assert!(found.cgroups.complete);
        assert_eq!(found.cgroups.pods.keys().collect::<Vec<_>>(), [A, B]);
        assert_eq!(found.cgroups.pods[A], cgroup_at(&kubepods.join(format!("burstable/pod{A}"))).unwrap());
        assert_eq!(found.parents.len(), 2);
        assert_eq!(found.cgroups.parents, [kubepods]);
    }

    #[test]
    fn of_two_cgroups_of_a_pod_the_one_with_processes_counts() {
        let root = tempfile::tempdir().unwrap();
        let slice = format!("kubepods.slice/kubepods-pod{}.slice", A.replace('-', "_"));
        let (one, other) = (root.path().join(format!("kubepods/pod{A}")), root.path().join(slice));
        for (full, empty) in [(&one, &other), (&other, &one)] {
            for (directory, populated) in [(full, 1), (empty, 0)] {
                create_dir_all(directory).unwrap();
                for directory in [directory, directory.parent().unwrap()] {
                    let events = format!("populated {populated}\nfrozen 0\n");
                    std::fs::write(directory.join("cgroup.events"), events).unwrap();
                }
            }
            let found = scan(&[root.path().to_owned()]);
            assert_eq!(found.cgroups.pods[A].path, *full);
            assert_eq!(found.cgroups.parents.len(), 2);
            assert_eq!(found.cgroups.in_use, [full.parent().unwrap()]);
        }
    }

    #[test]
    fn without_a_kubelet_or_a_root_nothing_is_complete() {
        let root = tempfile::tempdir().unwrap();
        assert!(!scan(&[root.path().to_owned()]).cgroups.complete);
        assert!(!scan(&[root.path().join("none")]).cgroups.complete);
    }
}
