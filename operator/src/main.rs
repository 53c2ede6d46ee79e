//! `l7egg-operator`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use l7egg_daemon::{client::connect, log::LogSettings};
use l7egg_operator::{Settings, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Turns Eggs into EggAssignments for the node agents, and their reports into the Eggs' status.
///
/// Uses the service account of its pod, or the kubeconfig of $KUBECONFIG or ~/.kube/config.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  l7egg-operator --leader-elect                         in a cluster
  RUST_LOG=l7egg_operator=debug l7egg-operator          on a desk, against the current kubeconfig"
)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    log: LogSettings,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = start(Arguments::parse()).await else { return ExitCode::SUCCESS };
    match error.chain().nth(1) {
        // Errors of kube tell their causes themselves.
        Some(cause) => eprintln!("error: {error}: {cause}"),
        None => eprintln!("error: {error}"),
    }
    ExitCode::FAILURE
}

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    arguments.log.start();
    l7egg_daemon::files::allow_many();
    let client = client()
        .await
        .context("no way to the API server: run in a pod with a service account, or set KUBECONFIG")?;
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone())?);
    run(client, arguments.settings, shutdown).await?;
    Ok(())
}

async fn client() -> anyhow::Result<kube::Client> {
    Ok(connect(&kube::Config::infer().await?)?)
}

fn cancel_on_signal(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        shutdown.cancel();
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn what_the_agents_are_told_by_environment_it_is_told_so_too() {
        let command = Arguments::command();
        command.clone().debug_assert();
        let told =
            |id: &str| command.get_arguments().find(|it| it.get_id() == id).and_then(clap::Arg::get_env);
        for (id, variable) in [
            ("log_format", "L7EGG_LOG_FORMAT"),
            ("egress_bandwidth_annotation", "L7EGG_EGRESS_BANDWIDTH_ANNOTATION"),
        ] {
            assert_eq!(told(id).and_then(|it| it.to_str()), Some(variable));
        }
    }
}
