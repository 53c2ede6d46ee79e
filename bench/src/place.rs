//! Where a bench puts its cgroups and pins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::netns::run;

/// Begins the names of its directories; the number of its process follows, and `-`.
pub const NAME: &str = "l7egg-bench-";

/// How long the processes of a cgroup may take to end, which are killed.
const END: Duration = Duration::from_secs(10);

/// Where cgroup2 is mounted.
pub fn cgroup2_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    mount.and_then(|line| line.split(' ').nth(1)).map(PathBuf::from).context("no cgroup2 is mounted")
}

/// Ends the processes of a cgroup and removes it with all below it; one that cannot be removed stays.
pub fn remove_cgroup(cgroup: &Path) {
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    let deadline = Instant::now() + END;
    while !is_removed(cgroup) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_removed(cgroup: &Path) -> bool {
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).for_each(|path| {
        is_removed(&path);
    });
    fs::remove_dir(cgroup).is_ok()
}

/// A bpffs of its own; unmounted when dropped, and with it go its programs, links and maps.
pub struct Bpffs(PathBuf);

impl Bpffs {
    /// Mounts one.
    pub fn mount() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{NAME}{}-{number}", std::process::id()));
        fs::create_dir_all(&path)?;
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&path))?;
        Ok(Self(path))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}
