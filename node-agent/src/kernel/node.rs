//! Which cgroups hold pods: for the programs of the node itself, which leave these alone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use l7egg_ebpf_common::abi::{PODS_CGROUPS, PodsCgroup};

use super::error::kernel;
use super::programs::Maps;
use crate::datapath::DatapathError;

/// The ids of these cgroups, of those that are there.
pub fn ids(directories: &[PathBuf]) -> Vec<Option<u64>> {
    directories.iter().map(|directory| Some(fs::metadata(directory).ok()?.ino())).collect()
}

/// Tells the programs. Before they are attached to the node; a directory that is gone is left out.
pub fn tell(maps: &mut Maps, directories: &[PathBuf]) -> Result<(), DatapathError> {
    let mut known = Vec::new();
    for directory in directories {
        let what = || kernel(format!("finding cgroup {} in its tree", directory.display()));
        match pods_cgroup(directory) {
            Ok(cgroup) => known.push(cgroup),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(what()(error)),
        }
    }
    if known.len() > PODS_CGROUPS as usize {
        return Err(DatapathError::MapFull {
            map: "PODS",
            advice: format!(
                "{PODS_CGROUPS} directories with pods are the most for one node, and here are {}: name the one to look in with --cgroup-root (the first: {})",
                known.len(),
                directories[0].display()
            ),
        });
    }
    known.resize(PODS_CGROUPS as usize, PodsCgroup::default());
    // The last first: a list that grows loses none meanwhile.
    for (index, cgroup) in (0..).zip(known).collect::<Vec<_>>().into_iter().rev() {
        maps.pods.set(index, cgroup, 0).map_err(kernel("writing to map PODS"))?;
    }
    Ok(())
}

fn pods_cgroup(directory: &Path) -> io::Result<PodsCgroup> {
    Ok(PodsCgroup { id: fs::metadata(directory)?.ino(), level: level(directory)?, reserved: 0 })
}

/// How many cgroups are above one.
fn level(directory: &Path) -> io::Result<u32> {
    fs::metadata(directory)?;
    let above = directory.ancestors().skip(1).take_while(|path| path.join("cgroup.procs").exists());
    let above: Vec<&Path> = above.collect();
    // The root of the whole tree has no type. The root of a part of it, as a cgroup namespace shows it, has one.
    match above.last() {
        Some(root) if !root.join("cgroup.type").exists() => Ok(above.len() as u32),
        _ => Err(io::Error::other(
            "it is not in a whole tree of cgroups: mount the node's /sys/fs/cgroup into the agent's pod, outside of a cgroup namespace",
        )),
    }
}
