//! `cargo xtask crds`: the CRD manifests, generated from the API types.

use anyhow::Result;
use clap::Args;

use crate::process::{command, step};

/// Write or compare.
#[derive(Args)]
pub struct CrdsArgs {
    /// Write nothing; fail if the files differ from what would be written
    #[arg(long)]
    pub check: bool,
}

/// Runs `cargo xtask crds`.
pub fn run(args: &CrdsArgs) -> Result<()> {
    let generator =
        ["run", "--quiet", "--package", "xtask", "--features", "crds", "--bin", "xtask-crds", "--"];
    let mut cargo = command("cargo", generator);
    cargo.args(args.check.then_some("--check"));
    step(
        if args.check { "comparing manifests/crds with the API types" } else { "writing manifests/crds" },
        cargo,
    )
    .run()
}
