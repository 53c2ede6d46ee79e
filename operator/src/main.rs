//! `l7egg-operator`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use l7egg_operator::{Settings, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

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

    /// Log format.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A connection is made within this, with TLS.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// Silence of a connection after which it is given up: longer than that of a watch, and than what an API server takes for an answer.
const SILENT_FOR: Duration = Duration::from_secs(65);

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
    // kube logs every failed request as an error, before anyone knows whether it matters; we tell what does.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client::client::builder=off"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match arguments.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    l7egg_daemon::files::allow_many();
    let client = client()
        .await
        .context("no way to the API server: run in a pod with a service account, or set KUBECONFIG")?;
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone())?);
    run(client, arguments.settings, shutdown).await?;
    Ok(())
}

/// A client that notices dead connections: a host that dies hard ends none of its own.
async fn client() -> anyhow::Result<kube::Client> {
    let mut config = kube::Config::infer().await?;
    config.connect_timeout = Some(CONNECTED_WITHIN);
    config.write_timeout = Some(CONNECTED_WITHIN);
    config.read_timeout = Some(SILENT_FOR);
    // From the request on, not from when the connection was used last.
    config.reset_reader_on_write = true;
    // Its pauses grow to minutes, unseen; whoever asks tries again by itself.
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
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
