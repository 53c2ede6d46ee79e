//! `cargo xtask fmt` and `cargo xtask lint`.

use anyhow::Result;

use crate::crds::{self, CrdsArgs};
use crate::process::{command, step};
use crate::setup::{cargo_deny, ebpf_toolchain};
use crate::{build, workspace};

/// Formats the workspace and the kernel programs.
pub fn fmt(check: bool) -> Result<()> {
    let what = if check { "checking the format" } else { "formatting" };
    for (what, folder) in [
        (what.to_owned(), workspace::root().to_path_buf()),
        (format!("{what} of ebpf"), workspace::root().join("ebpf")),
        (format!("{what} of fuzz"), workspace::root().join("fuzz")),
    ] {
        let mut cargo = command("cargo", ["fmt", "--all"]);
        cargo.args(check.then_some("--check")).current_dir(folder);
        step(what, cargo).limit(120).run()?;
    }
    Ok(())
}

/// All that can be said about the code without running it.
pub fn lint() -> Result<()> {
    fmt(true)?;
    crds::run(&CrdsArgs { check: true })?;
    build::kernel_programs()?;
    let clippy = command("cargo", ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    step("clippy", clippy).limit(3600).run()?;
    if let Some(toolchain) = ebpf_toolchain::choose() {
        let mut clippy = ebpf_toolchain::cargo(toolchain, "clippy");
        // A key or value by reference stays where it is; by value it takes a place on the 512 bytes of stack.
        clippy.args(["--", "-D", "warnings", "-A", "clippy::needless-borrows-for-generic-args"]);
        step("clippy for the kernel programs", clippy).limit(1800).run()?;
    }
    // Advisories are left to whoever can reach their database: cargo deny check advisories.
    let deny = command(cargo_deny::ensure()?, ["--workspace", "check", "licenses", "bans", "sources"]);
    step("licenses, duplicate versions and sources of the dependencies", deny).limit(300).run()
}
