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

/// Descriptors of every map, and the backstops that there were when it was looked last.
pub struct Pins {
    directory: PathBuf,
    maps: BTreeMap<OsString, OwnedFd>,
    backstops: BTreeMap<String, BTreeSet<PathBuf>>,
}

impl Pins {
    /// Takes note of all maps that are pinned in the agent's directory.
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        let mut pins =
            Pins { directory: directory.to_owned(), maps: BTreeMap::new(), backstops: BTreeMap::new() };
        pins.note_new()
            .map_err(kernel(format!("opening the maps in {}", pins.maps_directory().display())))?;
        Ok(pins)
    }

    /// Pins the maps that are pinned no more: the next agent finds what the links' programs use. How many they were.
    pub fn put_maps_back(&mut self) -> Result<usize, DatapathError> {
        let maps = self.maps_directory();
        let lost: Vec<_> = self.maps.iter().filter(|(name, _)| is_gone(&maps.join(name))).collect();
        let is_mounted = "is bpffs still mounted there (mount -t bpf bpf /sys/fs/bpf)?";
        let what = || {
            kernel(format!(
                "putting maps back to {}, which somebody has taken away: {is_mounted}",
                maps.display()
            ))
        };
        if !lost.is_empty() {
            fs::create_dir_all(&maps).map_err(what())?;
        }
        for (name, map) in &lost {
            sys::pin(map.as_fd(), &maps.join(name)).map_err(what())?;
        }
        let lost = lost.len();
        // Those of bandwidth limits come with the first one.
        self.note_new().map_err(kernel(format!("opening the maps in {}", maps.display())))?;
        Ok(lost)
    }

    fn note_new(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(self.maps_directory())? {
            let entry = entry?;
            // Directories are somebody else's.
            if !self.maps.contains_key(&entry.file_name())
                && !entry.file_type().is_ok_and(|kind| kind.is_dir())
            {
                self.maps.insert(entry.file_name(), sys::open_pinned(&entry.path())?);
            }
        }
        Ok(())
    }

    fn maps_directory(&self) -> PathBuf {
        self.directory.join("maps")
    }

    /// Of these pods those of whose backstop something was there when this was asked last, and is not any more. Where something new has
    /// come, the pod has another network.
    pub fn lost_backstops<'a>(&mut self, pods: impl Iterator<Item = &'a String>) -> Vec<String> {
        let now: BTreeMap<String, BTreeSet<PathBuf>> =
            pods.map(|uid| (uid.clone(), self.backstop_of(uid))).collect();
        let is_lost = |(uid, there): &(&String, &BTreeSet<PathBuf>)| {
            self.backstops.get(*uid).is_some_and(|before| there.is_subset(before) && *there != before)
        };
        let lost = now.iter().filter(is_lost).map(|(uid, _)| uid.clone()).collect();
        self.backstops = now;
        lost
    }

    /// The pins of the programs on a pod's interfaces.
    fn backstop_of(&self, uid: &str) -> BTreeSet<PathBuf> {
        let of_pod = self.directory.join("interfaces").join(uid);
        let pins = ["entering", "leaving"].map(|program| fs::read_dir(of_pod.join(program)));
        pins.into_iter().flatten().flatten().flatten().map(|pin| pin.path()).collect()
    }
}

/// Whether nothing is pinned here. Where that cannot be known, nothing is concluded.
pub fn is_gone(pin: &Path) -> bool {
    fs::symlink_metadata(pin).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
