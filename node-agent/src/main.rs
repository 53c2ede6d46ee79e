//! `l7egg-node-agent`, see `--help`.

use std::process::ExitCode;

use clap::Parser;
use l7egg_node_agent::{causes::causes, run::run, settings::Cli};

#[tokio::main]
async fn main() -> ExitCode {
    run(Cli::parse()).await.unwrap_or_else(|error| {
        eprintln!("error: {}", causes(error.as_ref()));
        ExitCode::from(2)
    })
}
