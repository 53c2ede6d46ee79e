//! Waiting for the cluster.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

const INTERVAL: Duration = Duration::from_millis(100);

/// What a try of [`eventually`] found.
pub type Progress<T> = Result<T, String>;

/// Asks again every 100 ms until the answer is `Ok`.
///
/// # Errors
/// When that takes longer than `limit`: the message holds `what` was waited for and the last answer. An error of
/// the try itself counts as an answer, since clusters have moments of weakness.
pub async fn eventually<T, F, R>(what: &str, limit: Duration, mut ask: F) -> anyhow::Result<T>
where
    F: FnMut() -> R,
    R: Future<Output = anyhow::Result<Progress<T>>>,
{
    let limit = limit * patience();
    let deadline = Instant::now() + limit;
    loop {
        let last = match ask().await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => state,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= deadline {
            bail!("not within {} s: {what}; last seen: {last}", limit.as_secs());
        }
        sleep(INTERVAL).await;
    }
}

/// The same for a future that waits by itself.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> anyhow::Result<T> {
    let limit = limit * patience();
    tokio::time::timeout(limit, future)
        .await
        .with_context(|| format!("not within {} s: {what}", limit.as_secs()))
}

/// `L7EGG_PATIENCE=N` waits N times as long: for machines that are emulated.
pub fn patience() -> u32 {
    std::env::var("L7EGG_PATIENCE").ok().and_then(|patience| patience.parse().ok()).unwrap_or(1)
}
