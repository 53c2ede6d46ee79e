//! Which container of a pod a cgroup is.
//!
//! Its directory is named by the runtime's id, which the pod's status tells seconds later. But every container has the
//! file for its termination message mounted, `…/pods/<uid>/containers/<name>/<hash>` of the kubelet's directory
//! (`pkg/kubelet/kubelet_getters.go`), before its program is started, whatever the runtime.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::DirEntryExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::is_of_runtime;
use crate::netns;

/// A runtime has mounted everything by then.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// A cgroup right below a pod's.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its directory.
    pub path: PathBuf,
    /// Name of the container in the pod's spec; not known of the sandbox, and of one that is being made.
    pub name: Option<String>,
    /// When it was first seen.
    pub seen: Instant,
}

/// What the view of a pod says of its containers is compared without the time.
impl PartialEq for Container {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.name == other.name
    }
}

impl Eq for Container {}

impl Container {
    /// Whether it may just be in the making.
    #[must_use]
    pub fn is_young(&self) -> bool {
        self.name.is_none() && self.seen.elapsed() < STARTS_WITHIN
    }

    /// Whether something runs in it of which it could not be found out what.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.name.is_none() && !self.is_young() && netns::oldest_process(&self.path).is_some()
    }
}

/// Looks at what is below a pod's cgroup. `known` has the names that were found out before: they stay. True if anything is
/// new.
pub fn look(
    pod: &Path,
    uid: &str,
    known: impl Fn(u64) -> Option<String>,
    containers: &mut BTreeMap<u64, Container>,
) -> bool {
    let mut present = BTreeMap::new();
    let mut changed = false;
    for entry in fs::read_dir(pod).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || is_of_runtime(&entry.file_name()) {
            continue;
        }
        let (id, path) = (entry.ino(), entry.path());
        let mut container = containers.remove(&id).unwrap_or_else(|| {
            changed = true;
            Container { path, name: None, seen: Instant::now() }
        });
        if container.name.is_none() {
            container.name = known(id).or_else(|| name(&container.path, uid));
            changed |= container.name.is_some();
        }
        present.insert(id, container);
    }
    changed |= !containers.is_empty();
    *containers = present;
    changed
}

/// The name of the container in a cgroup, from what its oldest process has mounted.
fn name(cgroup: &Path, uid: &str) -> Option<String> {
    let pid = netns::oldest_process(cgroup)?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
    name_in(&mounts, uid).map(str::to_owned)
}

/// The name in a `mountinfo` (proc_pid_mountinfo(5)). Two names are none: one of them is a lie.
fn name_in<'a>(mounts: &'a str, uid: &str) -> Option<&'a str> {
    let of_pod = format!("/pods/{uid}/");
    let mut names = mounts.lines().filter_map(|line| {
        let root = line.split(' ').nth(3)?;
        // The first part that is the pod's: behind it a volume of the pod may look like anything.
        let (_, below) = root.split_once(&of_pod)?;
        let (name, file) = below.strip_prefix("containers/")?.split_once('/')?;
        (!name.is_empty() && !file.is_empty() && !file.contains('/')).then_some(name)
    });
    let first = names.next()?;
    names.all(|name| name == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f3a2b1c-1111-2222-3333-444455556666";

    fn mount(root: &str, on: &str) -> String {
        format!("811 799 8:1 {root} {on} rw,relatime - ext4 /dev/sda1 rw\n")
    }

    #[test]
    fn the_file_for_the_termination_message_tells_the_name() {
        let of = |kubelet: &str, name: &str| {
            mount(&format!("{kubelet}/pods/{UID}/containers/{name}/5f1d2a3b"), "/dev/termination-log")
        };
        let hosts = mount(&format!("/var/lib/kubelet/pods/{UID}/etc-hosts"), "/etc/hosts");
        let app = hosts.clone() + &of("/var/lib/kubelet", "app");
        assert_eq!(name_in(&app, UID), Some("app"));
        // The kubelet's directory may be a file system of its own, and runtimes keep no order.
        assert_eq!(name_in(&(of("", "init-db") + &hosts), UID), Some("init-db"));
        assert_eq!(name_in(&app, "another"), None);
        assert_eq!(name_in(&hosts, UID), None);
    }

    #[test]
    fn a_volume_that_looks_like_it_is_no_proof() {
        let volume = format!(
            "/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/x/pods/{UID}/containers/free/y"
        );
        assert_eq!(name_in(&mount(&volume, "/x"), UID), None);
        // A tmpfs of the pod's begins anew; then there are two names.
        let tmpfs = mount(&format!("/pods/{UID}/containers/free/y"), "/x");
        let own = mount(&format!("/var/lib/kubelet/pods/{UID}/containers/app/y"), "/dev/termination-log");
        assert_eq!(name_in(&(tmpfs + &own), UID), None);
    }

    #[test]
    fn containers_come_are_named_and_go() {
        let pod = tempfile::tempdir().unwrap();
        let mut containers = BTreeMap::new();
        let look = |containers: &mut _, name: Option<&str>| {
            look(pod.path(), UID, |_| name.map(str::to_owned), containers)
        };
        assert!(!look(&mut containers, None));
        fs::create_dir(pod.path().join("c1")).unwrap();
        assert!(look(&mut containers, None));
        assert!(containers.values().next().unwrap().is_young());
        assert!(!look(&mut containers, None));
        assert!(look(&mut containers, Some("app")));
        assert!(!look(&mut containers, Some("other")));
        assert_eq!(containers.values().next().unwrap().name.as_deref(), Some("app"));
        fs::remove_dir(pod.path().join("c1")).unwrap();
        assert!(look(&mut containers, None));
        assert!(containers.is_empty());
    }
}
