//! `cargo xtask images`: OCI archives of what runs in a cluster, packed without Docker. Tests and the demo take those of profile dev,
//! which are built anyway; a cluster of somebody's takes those of profile release.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::build;
use crate::process::{command, step};
use crate::setup::{self, Part};
use crate::workspace::{self, Profile};

/// Which images.
#[derive(Args)]
pub struct ImagesArgs {
    /// Build operator and node agent optimised, and pack these two, for a registry: into TARGET/images/release
    #[arg(long)]
    release: bool,
}

/// An image and the programs in it.
struct Image {
    name: &'static str,
    /// Our own programs, from cargo's target directory, at the image's top.
    programs: &'static [&'static str],
    /// Programs of this machine, with the shared libraries that they need.
    tools: &'static [&'static str],
    busybox: bool,
}

/// The operator.
const OPERATOR: Image =
    Image { name: "l7egg-operator", programs: &["l7egg-operator"], tools: &[], busybox: false };
/// The node agent.
const NODE_AGENT: Image =
    Image { name: "l7egg-node-agent", programs: &["l7egg-node-agent"], tools: &[], busybox: false };
/// What tests and the demo run in pods, and the local cluster's DNS server.
const TESTKIT: Image = Image {
    name: "l7egg-testkit",
    programs: &["world", "probe"],
    tools: &["curl", "dig", "dnsmasq", "getent", "ip"],
    busybox: true,
};

/// Runs `cargo xtask images`.
pub fn run(args: &ImagesArgs) -> Result<()> {
    let archives = if args.release { release()? } else { all()? };
    archives.iter().for_each(|path| println!("{}", path.display()));
    Ok(())
}

/// Packs all images into `TARGET/images` and returns the archives' paths. Their programs must have been built.
pub fn all() -> Result<Vec<PathBuf>> {
    setup::ensure(&[Part::Images])?;
    [OPERATOR, NODE_AGENT, TESTKIT].iter().map(|image| pack(image, Profile::Dev, true)).collect()
}

/// Packs what runs on every node: not the operator.
pub fn of_every_node() -> Result<Vec<PathBuf>> {
    setup::ensure(&[Part::Images])?;
    [NODE_AGENT, TESTKIT].iter().map(|image| pack(image, Profile::Dev, true)).collect()
}

/// Packs the test kit for a cluster's DNS, with our own programs only if they have been built already.
pub fn testkit() -> Result<PathBuf> {
    setup::ensure(&[Part::Images])?;
    pack(&TESTKIT, Profile::Dev, false)
}

/// Builds and packs what a cluster of somebody's runs.
fn release() -> Result<Vec<PathBuf>> {
    setup::ensure(&[Part::Images])?;
    build::release(&["l7egg-operator", "l7egg-node-agent"])?;
    [OPERATOR, NODE_AGENT].iter().map(|image| pack(image, Profile::Release, true)).collect()
}

fn pack(image: &Image, profile: Profile, complete: bool) -> Result<PathBuf> {
    let directory = match profile {
        Profile::Dev => workspace::target().join("images"),
        Profile::Release => workspace::target().join("images/release"),
    };
    fs::create_dir_all(directory.join("bin"))?;
    let archive = directory.join(image.name).with_extension("tar");

    let mut sources = vec![workspace::kit("cluster/mkimage.py")];
    let mut additions = Vec::new();
    for name in image.programs {
        let program = workspace::program(name, profile);
        if program.is_file() {
            let stripped = strip(&program, &directory.join("bin").join(name))?;
            additions.push(format!("{}:/{name}", stripped.display()));
            sources.push(program);
        } else if complete {
            bail!("{} has not been built; run: cargo xtask build", program.display());
        }
    }
    for name in image.tools {
        let tool =
            workspace::on_path(name).with_context(|| format!("{name} is missing; run: cargo xtask setup"))?;
        additions.push(format!("{}:/usr/bin/{name}", tool.display()));
    }

    let recipe = archive.with_extension("recipe");
    let wanted = additions.join("\n");
    if fs::read_to_string(&recipe).ok().as_deref() != Some(&wanted) || !is_newer(&archive, &sources) {
        let tag = match profile {
            Profile::Dev => "dev",
            Profile::Release => env!("CARGO_PKG_VERSION"),
        };
        let reference = format!("registry.local/{}:{tag}", image.name);
        let mut mkimage = command(workspace::kit("cluster/mkimage.py"), [reference]);
        mkimage.arg(&archive).args(image.busybox.then_some("--busybox"));
        mkimage.args(additions.iter().flat_map(|addition| ["--add", addition]));
        if let [program] = image.programs {
            mkimage.args(["--cmd", &format!("/{program}")]);
        }
        step(format!("packing {}", image.name), mkimage).limit(300).run()?;
        fs::write(&recipe, wanted)?;
    }
    Ok(archive)
}

/// Debug information would make up nine tenths of an image.
fn strip(program: &Path, stripped: &Path) -> Result<PathBuf> {
    if !is_newer(stripped, &[program.to_path_buf()]) {
        let new = stripped.with_extension(std::process::id().to_string());
        let mut strip = command("strip", ["--strip-debug", "-o"]);
        strip.arg(&new).arg(program);
        step("stripping", strip).limit(120).capture()?;
        fs::rename(&new, stripped)?;
    }
    Ok(stripped.to_path_buf())
}

fn is_newer(made: &Path, sources: &[PathBuf]) -> bool {
    let time = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    time(made)
        .is_some_and(|made| sources.iter().all(|source| time(source).is_some_and(|source| source <= made)))
}
