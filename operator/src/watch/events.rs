//! The events of one watch. Errors are the watch's to mend: it tries again after a pause.

use std::fmt::Debug;

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use l7egg_daemon::pauses::Pauses;

use crate::metrics::Metrics;

/// What has the rights that most watches need.
const BASE: &str = "manifests/base";

/// What a watch brings. Its errors are logged and counted.
pub(super) fn events<K: Debug + Send>(
    what: &'static str,
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    metrics: Metrics,
) -> impl Stream<Item = Event<K>> + Send {
    events_by(BASE, what, stream, metrics)
}

/// The same of a watch whose right is in this manifest.
pub(crate) fn events_by<K: Debug + Send>(
    manifest: &'static str,
    what: &'static str,
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    metrics: Metrics,
) -> impl Stream<Item = Event<K>> + Send {
    let mut failing = false;
    stream.backoff(Pauses::default()).filter_map(move |event| {
        std::future::ready(match event {
            Ok(event) => {
                // A list begins before the API server has been asked for it.
                if failing && !matches!(event, Event::Init) {
                    tracing::info!(what, "watch works again");
                    failing = false;
                }
                Some(event)
            }
            Err(error) => {
                metrics.watch_failed(what);
                if failing {
                    tracing::debug!(what, %error, "watch still fails");
                } else {
                    let advice = advice(&error, manifest);
                    tracing::warn!(what, %error, "watch failed, trying again{advice}");
                    failing = true;
                }
                None
            }
        })
    })
}

/// What a person can do about it, where that is known.
fn advice(error: &watcher::Error, manifest: &str) -> String {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return String::new();
    };
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            ": the CustomResourceDefinitions are not installed, apply manifests/crds".to_owned()
        }
        kube::Error::Api(status) if status.code == 403 => {
            format!(": the operator lacks the right, apply {manifest}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures::stream;
    use tokio::time::timeout;

    use super::*;

    /// As a watch does whose lists are refused: each begins before it is asked for.
    #[tokio::test(start_paused = true)]
    async fn lists_that_are_refused_are_asked_for_seldom() {
        let refused = stream::iter([false, true].into_iter().cycle()).map(|is_asked| match is_asked {
            false => Ok(Event::<()>::Init),
            true => Err(watcher::Error::NoResourceVersion),
        });
        let mut events = pin!(events("eggs", refused, Metrics::default()));
        let mut lists = 0;
        let _ = timeout(Duration::from_secs(600), async {
            while events.next().await.is_some() {
                lists += 1;
            }
        })
        .await;
        assert!((60..=130).contains(&lists), "{lists}");
    }
}
