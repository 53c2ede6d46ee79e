//! What benches that were killed have left on the machine: a directory with pods that stays is one more for every agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::netns;
use crate::place::{self, NAME};

/// Removes the cgroups, mounts and network namespaces of benches that no longer run. What cannot be removed stays.
pub fn remove() {
    for mount in ended(&std::env::temp_dir(), NAME) {
        // An empty directory is one that is not mounted.
        if fs::remove_dir(&mount).is_err() {
            let _ = Command::new("umount").arg("-l").arg(&mount).status();
            let _ = fs::remove_dir(mount);
        }
    }
    if let Ok(root) = place::cgroup2_root() {
        ended(&root, NAME).iter().for_each(|cgroup| place::remove_cgroup(cgroup));
    }
    for ns in ended(Path::new("/run/netns"), netns::NAME) {
        let _ = Command::new("ip").args(["netns", "del"]).args(ns.file_name()).status();
    }
}

/// What is in a directory and named after a process that has ended.
fn ended(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| process(name, prefix))
                .is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists())
        })
        .collect()
}

/// The process that a name has in it.
fn process(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_process_are_ours() {
        assert_eq!(process("l7egg-bench-9966-whole", NAME), Some(9966));
        assert_eq!(process("l7egg-bench-9966", NAME), Some(9966));
        for other in ["l7egg-bench-", "l7egg-bench-x-1", "l7egg-run-1", "kubepods", "l7egg-chaos-7-1"] {
            assert_eq!(process(other, NAME), None, "{other}");
        }
    }

    #[test]
    fn what_runs_keeps_its_own() {
        let directory = std::env::temp_dir().join(format!("l7egg-leftovers-{}", std::process::id()));
        let own = directory.join(format!("{NAME}{}-whole", std::process::id()));
        let gone = directory.join(format!("{NAME}{}-whole", u32::MAX));
        [&own, &gone].iter().for_each(|path| fs::create_dir_all(path).unwrap());
        assert_eq!(ended(&directory, NAME), [gone]);
        fs::remove_dir_all(directory).unwrap();
    }
}
