//! What every test needs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use l7egg_node_agent::datapath::DatapathSettings;

/// Settings with short TTLs; `bpffs` is to be set.
pub fn settings() -> DatapathSettings {
    DatapathSettings {
        bpffs: PathBuf::new(),
        min_ttl: Duration::from_secs(5),
        max_ttl: Duration::from_secs(3600),
    }
}

/// A bpffs of its own, so that tests do not find each other's pins.
pub struct Bpffs {
    path: PathBuf,
}

impl Bpffs {
    /// Mounts one.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("l7egg-kernel-{}-{name}", std::process::id()));
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

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; these tests need root and iproute2"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}; these tests need root",
        String::from_utf8_lossy(&output.stderr)
    );
}
