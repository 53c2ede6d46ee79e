//! The compiler and linker for the kernel programs.
//!
//! They need `core` compiled for the BPF target (`-Z build-std`), so a compiler with the library's sources, and
//! bpf-linker with the LLVM of that compiler. Two ways, tried in this order:
//!
//! 1. rustup's nightly with the component `rust-src`, and `bpf-linker` on PATH: the usual way.
//! 2. Debian 12's rustc-web and rust-web-src with its LLVM 22, and bpf-linker built against that, in the cache:
//!    needs nothing but Debian's mirror and crates.io.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::is_debian_12;
use crate::process::{command, step};
use crate::workspace;

/// The version of bpf-linker, and the LLVM in Debian's rustc-web: one cannot read the other's newer bitcode.
const LINKER: &str = "0.13.0";
const LLVM: &str = "22";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// Which compiler builds the kernel programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Toolchain {
    /// rustup's nightly.
    Nightly,
    /// Debian's, outside of rustup.
    Debian,
}

/// The toolchain that is there, if one is.
pub fn choose() -> Option<Toolchain> {
    if nightly_is_complete() {
        Some(Toolchain::Nightly)
    } else if debian_is_complete() && debian_linker().is_file() {
        Some(Toolchain::Debian)
    } else {
        None
    }
}

/// Whether rustup's nightly can do it, with the linker on PATH.
pub fn nightly_is_complete() -> bool {
    workspace::on_path("bpf-linker").is_some() && nightly_sources().is_some()
}

/// Builds bpf-linker if it is needed and missing. Elsewhere than on Debian 12, the error says what to install.
pub fn ensure() -> Result<()> {
    if choose().is_some() {
        return Ok(());
    }
    if !is_debian_12() {
        bail!(
            "nothing here can compile the kernel programs; install:\n  \
             rustup toolchain install nightly --component rust-src\n  \
             cargo install bpf-linker      # and see its README for the LLVM that it wants"
        );
    }
    if !debian_is_complete() {
        bail!(
            "Debian's rustc-web or rust-web-src is not where it should be ({DEBIAN_RUSTC}, /usr/lib/rustlib/src)"
        );
    }
    build_linker().context("bpf-linker, the linker for the kernel programs")
}

/// `cargo SUBCOMMAND` for the BPF target with this toolchain. Of the caller's environment, what cargo or rustup
/// put there for the compiler that runs xtask itself does not go along.
pub fn cargo(toolchain: Toolchain, subcommand: &str) -> Command {
    let mut cargo = match (toolchain, subcommand) {
        (Toolchain::Nightly, _) => command("rustup", ["run", "nightly", "cargo", subcommand]),
        // cargo itself would run rustup's cargo-clippy, which lies in its home.
        (Toolchain::Debian, "clippy") => command("/usr/bin/cargo-clippy", [subcommand]),
        (Toolchain::Debian, _) => command(DEBIAN_CARGO, [subcommand]),
    };
    let inherited =
        ["CARGO", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"];
    for name in inherited {
        cargo.env_remove(name);
    }
    if toolchain == Toolchain::Debian {
        let linker = debian_linker().parent().map(Path::to_path_buf);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(linker.into_iter().chain(std::env::split_paths(&path)));
        cargo.env("PATH", path.unwrap_or_default());
        cargo.env("CARGO", DEBIAN_CARGO).env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
    }
    cargo.args(["-Z", "build-std=core", "--target", "bpfel-unknown-none", "--release"]);
    cargo.arg("--target-dir").arg(workspace::target().join("ebpf"));
    cargo.current_dir(workspace::root().join("ebpf"));
    cargo.env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf -C link-arg=--disable-expand-memcpy-in-order");
    cargo
}

fn nightly_sources() -> Option<PathBuf> {
    workspace::on_path("rustup")?;
    let rustup = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")))?;
    let toolchains = fs::read_dir(rustup.join("toolchains")).ok()?;
    let nightly = toolchains
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("nightly-x86_64"))?;
    Some(nightly.path().join("lib/rustlib/src/rust/library/core")).filter(|path| path.is_dir())
}

fn debian_is_complete() -> bool {
    Path::new(DEBIAN_RUSTC).is_file() && Path::new("/usr/lib/rustlib/src/rust/library/core").is_dir()
}

fn debian_linker() -> PathBuf {
    workspace::cache().join(format!("bpf-linker-{LINKER}-llvm{LLVM}/bin/bpf-linker"))
}

fn build_linker() -> Result<()> {
    let done = debian_linker().parent().and_then(Path::parent).context("no parent")?.to_path_buf();
    let work = done.with_extension(format!("tmp.{}", std::process::id()));
    let mut cargo =
        command("cargo", ["install", "bpf-linker", "--locked", "--version", LINKER, "--no-default-features"]);
    cargo.arg("--features").arg(format!("llvm-{LLVM}")).arg("--root").arg(&work);
    let prefix = format!("/usr/lib/llvm-{LLVM}");
    cargo.env(format!("LLVM_SYS_{LLVM}1_PREFIX"), &prefix).env("LLVM_PREFIX", &prefix);
    // Not the workspace's target directory: its lock is ours while we run.
    cargo.env("CARGO_TARGET_DIR", work.join("target"));
    let built = step("building bpf-linker (once, about a minute)", cargo).limit(1800).quietly("bpf-linker");
    fs::remove_dir_all(work.join("target")).ok();
    if let Err(error) = built {
        fs::remove_dir_all(&work).ok();
        return Err(error);
    }
    if done.exists() {
        return Ok(fs::remove_dir_all(&work)?); // someone else was faster
    }
    fs::rename(&work, &done)?;
    // A path without versions, for editors and for building by hand.
    let link = workspace::cache().join("bpf-linker");
    fs::remove_file(&link).ok();
    symlink(done.file_name().context("no name")?, &link)
        .with_context(|| format!("cannot write {}", link.display()))
}
