//! The systemd units of the host: services and scopes, as cgroups below slices (systemd.slice(5), systemd.resource-control(5)).

use std::{
    collections::BTreeMap,
    fs, io,
    os::{fd::AsFd, unix::fs::DirEntryExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use inotify::{Inotify, WatchMask};
use l7egg_crds::Labels;
use l7egg_node_agent::{
    cgroup::PodCgroup,
    netns::{Netns, PodNetwork, SpecNetwork, find},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Label of a unit: its name.
pub const UNIT_LABEL: &str = "l7egg.dev/unit";
/// Label of a unit: the slice that it is in.
pub const SLICE_LABEL: &str = "l7egg.dev/slice";
/// Label of a unit: its name without `.service` and what is behind an `@`, as workloads in Kubernetes have it.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";

/// A unit that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// The outermost slice that it is in, without `.slice`: `system`, `user`, `machine`.
    pub namespace: String,
    /// `nginx.service`
    pub name: String,
    /// What it is enforced by: of its path, so that it stays the same over restarts.
    #[serde(skip)]
    pub uid: String,
    /// What Eggs select it by.
    pub labels: Labels,
    /// Whether it uses the host's network.
    pub host_network: bool,
    /// Its cgroup.
    #[serde(skip)]
    pub cgroup: PodCgroup,
}

/// All units below a cgroup2 directory. A unit's own tree, which may be a user's, is not looked into.
///
/// # Errors
/// The directory cannot be read.
pub fn scan(root: &Path) -> io::Result<Vec<Unit>> {
    let mut units = Vec::new();
    let host = Netns::current().map_err(io::Error::other)?;
    walk(root, &[], &mut |slices, name, cgroup| {
        // What it has made for itself does not count, nor where it has containers.
        let found = find(&cgroup.path, &host, SpecNetwork::Unknown);
        let has_own = matches!(found, Ok(Some(PodNetwork::Own { .. })));
        units.push(unit(slices, name, cgroup, !has_own));
    })?;
    units.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(units)
}

fn walk(
    directory: &Path,
    slices: &[String],
    found: &mut impl FnMut(&[String], String, PodCgroup),
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if name.ends_with(".slice") {
            let inner: Vec<String> = slices.iter().cloned().chain([name]).collect();
            match walk(&entry.path(), &inner, found) {
                // It ended while it was looked at.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        } else if name.ends_with(".service") || name.ends_with(".scope") {
            found(slices, name, PodCgroup { path: entry.path(), id: entry.ino() });
        }
    }
    Ok(())
}

fn unit(slices: &[String], name: String, cgroup: PodCgroup, host_network: bool) -> Unit {
    let outermost = slices.first().map_or("system.slice", String::as_str);
    let stem = name.trim_end_matches(".service").trim_end_matches(".scope");
    let labels = [
        (UNIT_LABEL, name.as_str()),
        (SLICE_LABEL, slices.last().map_or("-.slice", String::as_str)),
        (NAME_LABEL, stem.split('@').next().unwrap_or(stem)),
    ];
    // bpffs has no dots in names; without a hyphen it would be a static pod's.
    let path: Vec<&str> = slices.iter().map(String::as_str).chain([name.as_str()]).collect();
    let hash = Sha256::digest(path.join("/").as_bytes());
    let digits: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Unit {
        namespace: outermost.trim_end_matches(".slice").to_owned(),
        uid: format!("unit-{digits}"),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        name,
        host_network,
        cgroup,
    }
}

/// Tells when units come and go.
#[derive(Debug)]
pub struct UnitWatch {
    root: PathBuf,
    inotify: Inotify,
    /// Whether it is told that some slice cannot be watched, until all can be.
    is_told: bool,
}

impl UnitWatch {
    /// A watch of all slices below a directory.
    ///
    /// # Errors
    /// No inotify instance can be had: `fs.inotify.max_user_instances` is used up.
    pub fn new(root: &Path) -> io::Result<Self> {
        let mut watch = UnitWatch { root: root.to_owned(), inotify: Inotify::init()?, is_told: false };
        watch.watch_all();
        Ok(watch)
    }

    /// Waits until something came or went, but no longer than this. The caller looks at everything anyway.
    pub fn wait(&mut self, patience: Duration) {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let start = Instant::now();
        let is_ready = poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], timeout);
        if is_ready.is_err() {
            std::thread::sleep(patience.saturating_sub(start.elapsed()));
        }
        let mut buffer = [0; 4096];
        // The events say no more than that there are some.
        while self.inotify.read_events(&mut buffer).is_ok_and(|mut events| events.next().is_some()) {}
        self.watch_all();
    }

    fn watch_all(&mut self) {
        let refused = self.watch(&self.root);
        match &refused {
            Some((directory, error)) if !self.is_told => tracing::warn!(
                directory = %directory.display(), %error,
                "cannot watch this slice, and maybe others: units in it are found with a delay of a second; tried again every second, raise fs.inotify.max_user_watches"
            ),
            _ => {}
        }
        self.is_told = refused.is_some();
    }

    /// The last one that could not be watched, and why. To watch a directory again changes nothing.
    fn watch(&self, directory: &Path) -> Option<(PathBuf, io::Error)> {
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
        let mut refused = match self.inotify.watches().add(directory, mask) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Some((directory.to_owned(), error)),
            _ => None,
        };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_slice = entry.file_name().to_str().is_some_and(|name| name.ends_with(".slice"));
            if is_slice && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                refused = self.watch(&entry.path()).or(refused);
            }
        }
        refused
    }
}

/// Units as a table for people.
#[must_use]
pub fn table(units: &[Unit]) -> String {
    let mut text = String::new();
    let width = units.iter().map(|unit| unit.namespace.len() + unit.name.len() + 1).max().unwrap_or_default();
    for unit in units {
        let labels: Vec<String> = unit.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let name = format!("{}/{}", unit.namespace, unit.name);
        text.push_str(&format!("{name:width$}  {}\n", labels.join(",")));
    }
    text
}

/// Where the units' cgroups are.
#[must_use]
pub fn cgroups(units: &[Unit]) -> BTreeMap<String, PodCgroup> {
    units.iter().map(|unit| (unit.uid.clone(), unit.cgroup.clone())).collect()
}

#[cfg(test)]
mod tests {
    use l7egg_daemon::testing::warnings;

    use super::*;

    #[test]
    fn services_and_scopes_are_units_and_their_own_trees_are_not_looked_into() {
        let root = tempfile::tempdir().unwrap();
        for directory in [
            "init.scope",
            "system.slice/nginx.service/worker.service",
            "system.slice/system-getty.slice/getty@tty1.service",
            "user.slice/user-1000.slice/user@1000.service/app.slice/evil.service",
            "kubepods.slice",
        ] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let units = scan(root.path()).unwrap();
        let names: Vec<String> =
            units.iter().map(|unit| format!("{}/{}", unit.namespace, unit.name)).collect();
        assert_eq!(
            names,
            [
                "system/getty@tty1.service",
                "system/init.scope",
                "system/nginx.service",
                "user/user@1000.service"
            ]
        );
        assert_eq!(units[0].labels[NAME_LABEL], "getty");
        assert_eq!(units[0].labels[SLICE_LABEL], "system-getty.slice");
        assert_eq!(units[2].labels[UNIT_LABEL], "nginx.service");
        assert!(units.iter().all(|unit| !unit.uid.contains('.') && unit.uid.contains('-')));
        let uid = &units[2].uid;
        fs::remove_dir_all(root.path().join("system.slice/nginx.service")).unwrap();
        fs::create_dir(root.path().join("system.slice/nginx.service")).unwrap();
        assert_eq!(&scan(root.path()).unwrap()[2].uid, uid);
        assert!(table(&units).contains("system/nginx.service"));
    }

    /// As where watches are used up: a file cannot be watched as a directory.
    #[test]
    fn what_cannot_be_watched_is_told_once_until_it_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::write(&root, "").unwrap();
        let told = warnings(|| {
            let mut watch = UnitWatch::new(&root).unwrap();
            (0..3).for_each(|_| watch.wait(Duration::ZERO));
            fs::remove_file(&root).unwrap();
            fs::create_dir(&root).unwrap();
            watch.wait(Duration::ZERO);
            fs::remove_dir(&root).unwrap();
            fs::write(&root, "").unwrap();
            watch.wait(Duration::ZERO);
        });
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().all(|it| it.contains("fs.inotify.max_user_watches")), "{told:?}");
    }

    #[test]
    fn the_watch_tells_of_units_in_slices_that_came_later() {
        let root = tempfile::tempdir().unwrap();
        let mut watch = UnitWatch::new(root.path()).unwrap();
        let long = Duration::from_secs(30);
        for directory in ["system.slice", "system.slice/a.service"] {
            fs::create_dir(root.path().join(directory)).unwrap();
            let start = Instant::now();
            watch.wait(long);
            assert!(start.elapsed() < long, "{directory}");
        }
    }
}
