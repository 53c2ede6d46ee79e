//! The world's addresses: a `local` route makes the kernel take every address of a network for its own
//! ("AnyIP"), without adding each one to an interface.

use anyhow::{Context, bail};
use tokio::process::Command;

use super::{NET4, NET6};

/// The routes that make the world's addresses local to this host.
pub struct Routes(());

impl Routes {
    /// Adds them; existing ones stay. Needs iproute2 and CAP_NET_ADMIN.
    pub async fn add() -> anyhow::Result<Self> {
        ip(&["-4", "route", "replace", "local", NET4, "dev", "lo"]).await?;
        ip(&["-6", "route", "replace", "local", NET6, "dev", "lo"]).await?;
        Ok(Routes(()))
    }

    /// Removes them again.
    pub async fn remove(self) -> anyhow::Result<()> {
        ip(&["-4", "route", "del", "local", NET4, "dev", "lo"]).await?;
        ip(&["-6", "route", "del", "local", NET6, "dev", "lo"]).await
    }
}

async fn ip(args: &[&str]) -> anyhow::Result<()> {
    let line = args.join(" ");
    let output = Command::new("ip").args(args).output().await.context("cannot run `ip`: install iproute2")?;
    if !output.status.success() {
        bail!("ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
