//! Building a package's integration tests and finding the programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::{command, step};
use crate::workspace;

/// A test program and the folder in which cargo would run it.
pub struct TestBinary {
    /// The program.
    pub program: PathBuf,
    /// Its package's folder.
    pub folder: PathBuf,
}

impl TestBinary {
    /// Sets what `cargo test` would set for it.
    pub fn prepare(&self, command: &mut Command) {
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
    }
}

/// One line of `cargo --message-format=json`, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
}

#[derive(Default, Deserialize)]
struct Profile {
    #[serde(default)]
    test: bool,
}

/// Builds the integration tests `tests` (a name or a pattern) of the package in `folder`.
pub fn build(folder: &str, tests: &str) -> Result<Vec<TestBinary>> {
    // Of the whole workspace, because a package alone would be built with other features of its dependencies.
    let arguments =
        ["test", "--workspace", "--test", tests, "--no-run", "--message-format=json-render-diagnostics"];
    let cargo = step(format!("building the tests of {folder}"), command("cargo", arguments));
    let folder = workspace::root().join(folder);
    let mut binaries = Vec::new();
    for line in cargo.limit(3600).capture()?.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("cargo's messages")?;
        if let (Some(program), Some(manifest), true) =
            (message.executable, message.manifest_path, message.profile.test)
            && manifest.parent() == Some(&folder)
        {
            binaries.push(TestBinary { program, folder: folder.clone() });
        }
    }
    if binaries.is_empty() {
        bail!("{} has no test {tests}", folder.display());
    }
    // Cargo tells of them as it has built them: in an order of chance, and tests of one cluster meet what those before them leave.
    binaries.sort_by_key(|binary| name(&binary.program));
    Ok(binaries)
}

/// The test's name: the program's without the hash behind it.
fn name(program: &Path) -> String {
    let stem = program.file_stem().unwrap_or_default().to_string_lossy();
    stem.rsplit_once('-').map_or(&*stem, |(name, _)| name).to_owned()
}
