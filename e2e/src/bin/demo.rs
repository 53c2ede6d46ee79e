//! Shows l7egg at work on the cluster of the kubeconfig.

use std::process::ExitCode;

use clap::Parser;

/// Applies, changes and deletes an Egg on a running cluster with l7egg, and prints what pods reach meanwhile.
/// Exits with 1 if anything happens that should not.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  cargo xtask demo
  KUBECONFIG=~/.kube/config demo"
)]
struct Arguments {}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments {} = Arguments::parse();
    Ok(if l7egg_e2e::demo::run().await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
