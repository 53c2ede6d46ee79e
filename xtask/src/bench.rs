//! `cargo xtask bench`: measurements against the usual alternatives.

use anyhow::{Result, bail};
use clap::Args;

/// The benches by name. There are none yet.
const BENCHES: [&str; 0] = [];

/// Which bench to run.
#[derive(Args)]
pub struct BenchArgs {
    /// A bench; without any, list them
    name: Option<String>,
}

/// Runs `cargo xtask bench`.
pub fn run(args: &BenchArgs) -> Result<()> {
    match &args.name {
        None if BENCHES.is_empty() => println!("no benches yet"),
        None => println!("{}", BENCHES.join("\n")),
        Some(name) => bail!("there is no bench {name}; cargo xtask bench lists those that there are"),
    }
    Ok(())
}
