//! Pods that watch a destination from their first moment, by `probe watch` as their command.

use std::time::Duration;

use super::{Namespace, eventually};
use crate::probe::{Change, Outcome};

/// What became of the tries of such a pod.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The first try.
    pub first: Change,
    /// The first that was denied: not a lost packet, which a busy machine may have too, but the kernel's own word.
    pub denied: Change,
    /// How many before that got through.
    pub reached: u64,
    /// Everything that it saw until then.
    pub changes: Vec<Change>,
}

impl Namespace {
    /// Waits until a pod that watches has been denied.
    ///
    /// # Errors
    /// When it is not within `limit`; the message holds its log.
    pub async fn until_denied(&self, pod: &str, limit: Duration) -> anyhow::Result<Watched> {
        let pod = self.running(pod).await?;
        eventually("the pod is denied", limit, || async {
            let changes = pod.changes().await?;
            let Some(end) = changes.iter().position(|change| change.outcome == Outcome::Denied) else {
                return Ok(Err(format!("{changes:?}")));
            };
            // With each change come the tries that had the outcome before.
            let pairs = changes[..=end].windows(2).filter(|pair| pair[0].outcome.is_reached());
            let reached = pairs.map(|pair| pair[1].tries).sum();
            let (first, denied) = (changes[0].clone(), changes[end].clone());
            Ok(Ok(Watched { first, denied, reached, changes: changes[..=end].to_vec() }))
        })
        .await
    }
}
