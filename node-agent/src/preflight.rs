//! What a node must have, checked before anything is tried: each thing that is missing in one line, with what to
//! do about it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::{
    mounts::points_of,
    netns::{pacing, tc::Method},
};

/// Oldest kernel whose verifier and helpers the programs are written for: `bpf_loop` came with 5.17.
const KERNEL_MIN: (u32, u32) = (5, 17);

/// Capabilities by their bit (`include/uapi/linux/capability.h`).
const CAPABILITIES: [(u32, &str, &str); 3] = [
    (39, "CAP_BPF", "to load programs and maps"),
    (12, "CAP_NET_ADMIN", "to attach them"),
    (38, "CAP_PERFMON", "for the verifier to accept them"),
];
const CAP_SYS_ADMIN: u32 = 21;

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.advice)
    }
}

/// The node as the checks see it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where `/proc` and `/sys` are looked for; `/` but in tests.
    pub root: PathBuf,
    /// Where bpffs should be.
    pub bpffs: PathBuf,
    /// The cgroup2 directories that the user named, instead of those that are mounted.
    pub cgroup_roots: Vec<PathBuf>,
}

impl Node {
    /// Everything that is missing.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        [self.kernel(), self.btf(), self.bpffs(), self.cgroup2()]
            .into_iter()
            .flatten()
            .chain(self.capabilities())
            .collect()
    }

    /// The trees to look for pods in: what the user named, or every cgroup2 mount.
    #[must_use]
    pub fn cgroup2_roots(&self) -> Vec<PathBuf> {
        if self.cgroup_roots.is_empty() {
            points_of(&self.mountinfo(), "cgroup2")
        } else {
            self.cgroup_roots.clone()
        }
    }

    /// The root of cgroup2, as far as it is mounted.
    #[must_use]
    pub fn cgroup2_mount(&self) -> Option<PathBuf> {
        points_of(&self.mountinfo(), "cgroup2").into_iter().next()
    }

    fn kernel(&self) -> Option<Missing> {
        let release = self.read("proc/sys/kernel/osrelease").unwrap_or_default();
        let version = kernel_version(&release)?;
        (version < KERNEL_MIN).then(|| {
            let (major, minor) = KERNEL_MIN;
            missing(
                format!("kernel {} is too old", release.trim()),
                format!("l7egg needs {major}.{minor} or newer, and is tested from 6.1 on; run the agent on nodes that have it"),
            )
        })
    }

    fn btf(&self) -> Option<Missing> {
        let path = self.root.join("sys/kernel/btf/vmlinux");
        (!path.exists()).then(|| {
            missing(
                "the kernel has no BTF (/sys/kernel/btf/vmlinux)",
                "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as the distributions' are",
            )
        })
    }

    fn bpffs(&self) -> Option<Missing> {
        let mounted = points_of(&self.mountinfo(), "bpf");
        // A directory of bpffs can be mounted as well as all of it.
        (!mounted.iter().any(|point| self.bpffs.starts_with(point))).then(|| {
            let path = self.bpffs.display();
            missing(
                format!("no bpffs at {path}"),
                format!("on the node: mount -t bpf bpf {path}; in a pod: mount the node's {path} as a hostPath volume; elsewhere: --bpffs"),
            )
        })
    }

    fn cgroup2(&self) -> Option<Missing> {
        let roots = self.cgroup2_roots();
        if roots.is_empty() {
            return Some(missing(
                "no cgroup2 is mounted",
                "on the node: mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1; in a pod: mount the node's /sys/fs/cgroup as a hostPath volume",
            ));
        }
        let unreadable = roots.iter().find(|root| fs::read_dir(root).is_err())?;
        Some(missing(
            format!("cgroup root {} cannot be read", unreadable.display()),
            "name a cgroup2 directory with --cgroup-root, or leave that out and all mounts of cgroup2 are searched",
        ))
    }

    fn capabilities(&self) -> Vec<Missing> {
        let status = self.read("proc/self/status").unwrap_or_default();
        let Some(effective) = effective(&status) else { return Vec::new() };
        let has = |bit: u32| effective & (1 << bit) != 0;
        // CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, but not for CAP_NET_ADMIN.
        let stands_in = |bit: u32| bit != 12 && has(CAP_SYS_ADMIN);
        CAPABILITIES
            .iter()
            .filter(|(bit, ..)| !has(*bit) && !stands_in(*bit))
            .map(|(_, name, why)| {
                missing(
                    format!("{name} is missing"),
                    format!("it is needed {why}; run as root, or add it to securityContext.capabilities of the pod"),
                )
            })
            .collect()
    }

    fn mountinfo(&self) -> String {
        self.read("proc/self/mountinfo").unwrap_or_default()
    }

    fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.root.join(Path::new(path)))
    }
}

/// What bandwidth limits are made of on this node, or why it can have none. The rest works without.
///
/// # Errors
/// What is missing.
pub fn bandwidth_limits() -> Result<String, Missing> {
    match pacing::has_fq() {
        Ok(true) => Ok(format!("fq, and programs attached by {}", Method::of_this_kernel())),
        Ok(false) => Err(missing(
            "no bandwidth limits on this node: its kernel has no fq queueing discipline",
            "load the module sch_fq, or use a kernel with CONFIG_NET_SCH_FQ",
        )),
        Err(error) => Err(missing(
            format!("no bandwidth limits on this node: trying fq in a network namespace: {error}"),
            "the agent needs SYS_ADMIN and NET_ADMIN for them",
        )),
    }
}

fn missing(what: impl Into<String>, advice: impl Into<String>) -> Missing {
    Missing { what: what.into(), advice: advice.into() }
}

/// `6.1.0-28-cloud-amd64` is (6, 1).
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node with everything, but for what `change` takes away.
    fn missing_after(change: impl Fn(&Path)) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let cgroup = root.path().join("cgroup");
        fs::create_dir(&cgroup).unwrap();
        write("proc/sys/kernel/osrelease", "6.1.0-28-cloud-amd64\n");
        write("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n");
        write(
            "proc/self/mountinfo",
            &format!(
                "1 0 0:1 / {} rw - cgroup2 cgroup2 rw\n2 0 0:2 / /sys/fs/bpf rw - bpf bpf rw\n",
                cgroup.display()
            ),
        );
        write("sys/kernel/btf/vmlinux", "");
        change(root.path());
        let node = Node { root: root.path().to_owned(), bpffs: "/sys/fs/bpf".into(), cgroup_roots: vec![] };
        node.missing().iter().map(ToString::to_string).collect()
    }

    fn expect_one(found: &[String], part: &str) {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(part), "{found:?}");
    }

    #[test]
    fn a_node_with_everything() {
        assert_eq!(missing_after(|_| ()), [""; 0]);
    }

    #[test]
    fn each_thing_is_told_with_advice() {
        expect_one(
            &missing_after(|root| fs::remove_file(root.join("sys/kernel/btf/vmlinux")).unwrap()),
            "BTF",
        );
        expect_one(
            &missing_after(|root| {
                fs::write(root.join("proc/sys/kernel/osrelease"), "5.10.0-30-amd64\n").unwrap()
            }),
            "kernel 5.10.0-30-amd64 is too old: l7egg needs 5.17",
        );
        let without = |kind: &'static str| {
            move |root: &Path| {
                let path = root.join("proc/self/mountinfo");
                let text = fs::read_to_string(&path).unwrap();
                let left: Vec<&str> = text.lines().filter(|line| !line.contains(kind)).collect();
                fs::write(&path, left.join("\n")).unwrap();
            }
        };
        expect_one(&missing_after(without("- bpf")), "mount -t bpf bpf /sys/fs/bpf");
        expect_one(&missing_after(without("cgroup2")), "no cgroup2 is mounted");
        expect_one(&missing_after(|root| fs::remove_dir(root.join("cgroup")).unwrap()), "--cgroup-root");
    }

    #[test]
    fn capabilities() {
        let with = |mask: &'static str| {
            move |root: &Path| fs::write(root.join("proc/self/status"), format!("CapEff:\t{mask}\n")).unwrap()
        };
        assert_eq!(missing_after(with("0000000000000000")).len(), 3);
        // BPF, PERFMON, NET_ADMIN.
        assert_eq!(missing_after(with("000000c000001000")), [""; 0]);
        // SYS_ADMIN and NET_ADMIN, as before 5.8.
        assert_eq!(missing_after(with("0000000000201000")), [""; 0]);
        expect_one(&missing_after(with("0000000000200000")), "CAP_NET_ADMIN");
    }
}
