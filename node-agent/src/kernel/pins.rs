//! What outlives the agent, while it runs: somebody may take it away, with `rm -r` or by what he believes to be a clean-up. Then
//! nothing is enforced any more, and nobody would say so.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::error::kernel;
use super::sys;
use crate::datapath::DatapathError;

/// Descriptors of every map, and which pods had a backstop when it was looked last.
pub struct Pins {
    directory: PathBuf,
    maps: Vec<(OsString, OwnedFd)>,
    backstops: BTreeSet<String>,
}

impl Pins {
    /// Takes note of all maps that are pinned in the agent's directory.
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        let maps = directory.join("maps");
        let what = || kernel(format!("opening the maps in {}", maps.display()));
        let mut held = Vec::new();
        for entry in fs::read_dir(&maps).map_err(what())? {
            let entry = entry.map_err(what())?;
            // Somebody else's.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            held.push((entry.file_name(), sys::open_pinned(&entry.path()).map_err(what())?));
        }
        Ok(Pins { directory: directory.to_owned(), maps: held, backstops: BTreeSet::new() })
    }

    /// Pins the maps that are pinned no more: the next agent finds what the links' programs use. How many they were.
    pub fn put_maps_back(&self) -> Result<usize, DatapathError> {
        let maps = self.directory.join("maps");
        let lost: Vec<_> = self.maps.iter().filter(|(name, _)| is_gone(&maps.join(name))).collect();
        if lost.is_empty() {
            return Ok(0);
        }
        let is_mounted = "is bpffs still mounted there (mount -t bpf bpf /sys/fs/bpf)?";
        let what = || {
            kernel(format!(
                "putting maps back to {}, which somebody has taken away: {is_mounted}",
                maps.display()
            ))
        };
        fs::create_dir_all(&maps).map_err(what())?;
        for (name, map) in &lost {
            sys::pin(map.as_fd(), &maps.join(name)).map_err(what())?;
        }
        Ok(lost.len())
    }

    /// Of these pods those whose backstop was there when this was asked last, and is not any more.
    pub fn lost_backstops<'a>(&mut self, pods: impl Iterator<Item = &'a String>) -> Vec<String> {
        let now: BTreeMap<&String, bool> = pods.map(|uid| (uid, self.has_backstop(uid))).collect();
        let lost = now.iter().filter(|(uid, is_there)| !**is_there && self.backstops.contains(**uid));
        let lost = lost.map(|(uid, _)| (*uid).clone()).collect();
        self.backstops =
            now.into_iter().filter(|(_, is_there)| *is_there).map(|(uid, _)| uid.clone()).collect();
        lost
    }

    fn has_backstop(&self, uid: &str) -> bool {
        let of_pod = self.directory.join("interfaces").join(uid);
        let is_pinned = |program: &str| {
            fs::read_dir(of_pod.join(program)).is_ok_and(|mut entries| entries.next().is_some())
        };
        is_pinned("entering") && is_pinned("leaving")
    }
}

/// Whether nothing is pinned here. Where that cannot be known, nothing is concluded.
pub fn is_gone(pin: &Path) -> bool {
    fs::symlink_metadata(pin).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
