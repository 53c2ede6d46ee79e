//! `l7egg-node-agent`, see `--help`.

use std::process::ExitCode;

use clap::Parser;
use l7egg_daemon::output;
use l7egg_node_agent::{causes::causes, run::run, settings::Cli};

#[tokio::main]
async fn main() -> ExitCode {
    run(Cli::parse()).await.unwrap_or_else(|error| {
        output::eprint(&format!("error: {}\n", causes(error.as_ref())));
        ExitCode::from(2)
    })
}
