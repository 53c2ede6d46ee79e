//! cargo-fuzz, which `fuzz` builds its targets with: compiled once into the cache.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{command, step};
use crate::workspace;

const VERSION: &str = "0.13.2";

/// The path of cargo-fuzz: the user's own, or one that is built here.
pub fn ensure() -> Result<PathBuf> {
    if let Some(installed) = workspace::on_path("cargo-fuzz") {
        return Ok(installed);
    }
    let root = workspace::cache().join(format!("cargo-fuzz-{VERSION}"));
    let program = root.join("bin/cargo-fuzz");
    if !program.is_file() {
        let mut cargo = command("cargo", ["install", "cargo-fuzz", "--locked", "--version", VERSION]);
        cargo.arg("--root").arg(&root).env("CARGO_TARGET_DIR", root.join("target"));
        cargo.args(["--profile", "dev"]);
        let built =
            step("building cargo-fuzz (once, about a minute)", cargo).limit(1800).quietly("cargo-fuzz");
        std::fs::remove_dir_all(root.join("target")).ok();
        built?;
    }
    Ok(program)
}
