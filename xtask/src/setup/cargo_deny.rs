//! cargo-deny, which `lint` runs: compiled once into the cache, because it takes minutes.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{command, step};
use crate::workspace;

const VERSION: &str = "0.20.2";

/// The path of cargo-deny: the user's own, or one that is built here.
pub fn ensure() -> Result<PathBuf> {
    if let Some(installed) = workspace::on_path("cargo-deny") {
        return Ok(installed);
    }
    let root = workspace::cache().join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        let mut cargo = command(
            "cargo",
            ["install", "cargo-deny", "--locked", "--version", VERSION, "--no-default-features"],
        );
        cargo.arg("--root").arg(&root).env("CARGO_TARGET_DIR", root.join("target"));
        // Its dependencies are no part of the product: speed of compiling counts, not speed of running.
        cargo.args(["--profile", "dev"]);
        let built = step("building cargo-deny (once, some minutes)", cargo).limit(3600).quietly("cargo-deny");
        std::fs::remove_dir_all(root.join("target")).ok();
        built?;
    }
    Ok(program)
}
