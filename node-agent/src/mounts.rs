//! `/proc/self/mountinfo`, as `proc_pid_mountinfo(5)` describes it.

use std::path::PathBuf;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub point: PathBuf,
    /// `cgroup2`, `bpf`, ….
    pub fs_type: String,
}

/// The mounts in order. Lines that cannot be read are skipped.
#[must_use]
pub fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

/// Where a file system of this type is mounted, in order and each place once.
#[must_use]
pub fn points_of(mountinfo: &str, fs_type: &str) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = Vec::new();
    for mount in mounts(mountinfo) {
        // What is mounted last at a place hides what was there before.
        points.retain(|point| *point != mount.point);
        if mount.fs_type == fs_type {
            points.push(mount.point);
        }
    }
    points
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split(' ').nth(4)?;
    Some(Mount { point: unescape(point).into(), fs_type: right.split(' ').next()?.to_owned() })
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let plain = |text: &str| text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
    text.split("\\134").map(plain).collect::<Vec<_>>().join("\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
38 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
40 23 0:40 / /sys/fs/bpf rw,relatime - bpf bpf rw,mode=700
not a line
41 23 0:40 / /mnt/a\\040b\\134c rw - ext4 /dev/sda rw
";

    #[test]
    fn by_type() {
        assert_eq!(points_of(HYBRID, "cgroup2"), [PathBuf::from("/sys/fs/cgroup/unified")]);
        assert_eq!(points_of(HYBRID, "bpf"), [PathBuf::from("/sys/fs/bpf")]);
        assert!(points_of("", "bpf").is_empty());
    }

    #[test]
    fn names_are_unescaped() {
        assert_eq!(mounts(HYBRID)[4].point, PathBuf::from("/mnt/a b\\c"));
    }

    #[test]
    fn what_is_mounted_over_is_not_seen() {
        let over = "1 0 0:1 / /sys/fs/bpf rw - bpf bpf rw\n2 1 0:2 / /sys/fs/bpf rw - tmpfs tmpfs rw\n";
        assert!(points_of(over, "bpf").is_empty());
    }
}
