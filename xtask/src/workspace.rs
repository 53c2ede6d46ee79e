//! Where things are: the workspace, the target directory, the cache, the kits.

use std::path::{Path, PathBuf};
use std::{env, io};

/// The workspace's top folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the workspace")
}

/// Cargo's target directory: `$CARGO_TARGET_DIR`, or `target` in the workspace.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// How programs are built.
#[derive(Clone, Copy)]
pub enum Profile {
    /// For tests and the demo.
    Dev,
    /// For those who use them.
    Release,
}

/// A program that `cargo build` made (profile dev).
pub fn binary(name: &str) -> PathBuf {
    program(name, Profile::Dev)
}

/// A program that `cargo build` made.
pub fn program(name: &str, profile: Profile) -> PathBuf {
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    target().join(folder).join(name)
}

/// The kernel programs' object files, without `.o`; the node agent embeds them.
pub const EBPF_OBJECTS: [&str; 2] = ["l7egg-ebpf", "l7egg-shape"];

/// Where the output of quiet steps and of test tiers goes.
pub fn logs() -> PathBuf {
    target().join("xtask-logs")
}

/// A file of the cluster or VM kit, for example `cluster/cluster.sh`.
pub fn kit(path: &str) -> PathBuf {
    root().join("xtask/kit").join(path)
}

/// What is built or downloaded once per machine: `$L7EGG_CACHE`, or `l7egg` in the user's cache directory.
pub fn cache() -> PathBuf {
    let dir = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    dir("L7EGG_CACHE")
        .or_else(|| dir("XDG_CACHE_HOME").map(|cache| cache.join("l7egg")))
        .unwrap_or_else(|| dir("HOME").unwrap_or_else(|| "/root".into()).join(".cache/l7egg"))
}

/// A path of the command line, which counts from the caller's directory while commands run in the top folder.
pub fn absolute(path: &str) -> io::Result<PathBuf> {
    std::path::absolute(path)
}

/// The first `name` on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}
