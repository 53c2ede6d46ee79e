//! A bpffs of its own, so that tests do not find each other's pins.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{run, unique};

/// A mounted bpffs; unmounted when dropped, and with it go its programs, links and maps.
pub struct Bpffs {
    path: PathBuf,
}

impl Bpffs {
    /// Mounts one.
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("l7egg-kernel-{}", unique()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        run("mount", &["-t", "bpf", "bpf", &path.to_string_lossy()]);
        Self { path }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        let _ = std::fs::remove_dir(&self.path);
    }
}
