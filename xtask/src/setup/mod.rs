//! `cargo xtask setup`: what the other commands need, installed where we know how, explained elsewhere.

pub mod cargo_deny;
pub mod cargo_fuzz;
pub mod ebpf_toolchain;
mod packages;
mod services;

use std::fs;

use anyhow::Result;

pub use packages::Part;

/// Installs everything that any command needs. Does nothing, in well under a second, when all is there.
pub fn run() -> Result<()> {
    ensure(&Part::ALL)?;
    eprintln!("xtask: setup: everything is there");
    Ok(())
}

/// Makes sure of what one command needs. On Debian 12 it installs what is missing; elsewhere the error says
/// what to install and how.
pub fn ensure(parts: &[Part]) -> Result<()> {
    if is_debian_12() {
        packages::install(parts)?;
    } else {
        packages::explain(parts)?;
    }
    if parts.contains(&Part::Ebpf) {
        ebpf_toolchain::ensure()?;
    }
    Ok(())
}

/// Whether this is Debian 12 "bookworm", whose packages are known here by name.
pub fn is_debian_12() -> bool {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    os.lines().any(|line| line == "ID=debian") && os.lines().any(|line| line == "VERSION_CODENAME=bookworm")
}
