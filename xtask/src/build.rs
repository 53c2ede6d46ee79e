//! `cargo xtask build`: the kernel programs first, then the workspace, whose node agent embeds them.

use std::fs;

use anyhow::{Context, Result};
use clap::Args;

use crate::process::{command, step};
use crate::setup::ebpf_toolchain::{self, Toolchain};
use crate::setup::{self, Part};
use crate::workspace;

/// What to build.
#[derive(Args)]
pub struct BuildArgs {
    /// Only the kernel programs
    #[arg(long)]
    ebpf_only: bool,
}

/// Runs `cargo xtask build`.
pub fn run(args: &BuildArgs) -> Result<()> {
    if args.ebpf_only {
        return kernel_programs();
    }
    all()
}

/// The kernel programs and every program of the workspace.
pub fn all() -> Result<()> {
    kernel_programs()?;
    let cargo = command("cargo", ["build", "--workspace"]);
    step("building the workspace", cargo).limit(3600).run()
}

/// The same and the tests. In one go, because the tests' dependencies switch on features of others: programs
/// built without them and tests built with them would compile half of all crates twice.
pub fn all_and_tests() -> Result<()> {
    kernel_programs()?;
    let cargo = command("cargo", ["build", "--workspace", "--all-targets"]);
    step("building the workspace and its tests", cargo).limit(3600).run()
}

/// The kernel programs and these packages, for those who use them.
pub fn release(packages: &[&str]) -> Result<()> {
    kernel_programs()?;
    let mut cargo = command("cargo", ["build", "--release"]);
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    step("building for release", cargo).limit(3600).run()
}

/// Builds the kernel programs into `target/ebpf`: [`workspace::EBPF_OBJECTS`].
pub fn kernel_programs() -> Result<()> {
    setup::ensure(&[Part::Ebpf])?;
    let toolchain =
        ebpf_toolchain::choose().context("no toolchain for the kernel programs; run: cargo xtask setup")?;
    let mut cargo = ebpf_toolchain::cargo(toolchain, "build");
    cargo.args(["--package", "l7egg-ebpf"]);
    let compiler = match toolchain {
        Toolchain::Nightly => "rustup's nightly",
        Toolchain::Debian => "Debian's rustc",
    };
    step(format!("building the kernel programs with {compiler}"), cargo).limit(1800).run()?;

    for name in workspace::EBPF_OBJECTS {
        embed(name)?;
    }
    Ok(())
}

/// Puts an object where the node agent finds it.
fn embed(name: &str) -> Result<()> {
    let built = workspace::target().join("ebpf/bpfel-unknown-none/release").join(name);
    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let embedded = workspace::target().join("ebpf").join(format!("{name}.o"));
    // An untouched file spares the node agent a compilation.
    if fs::read(&embedded).ok().as_deref() != Some(&object) {
        let new = embedded.with_extension("o.new");
        fs::write(&new, &object).with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, &embedded)?;
    }
    Ok(())
}
