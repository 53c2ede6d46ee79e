//! The events of one watch. Errors are the watch's to mend: it tries again after a pause.

use std::fmt::Debug;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};

use crate::metrics::Metrics;

/// What a watch brings. Its errors are logged and counted.
pub(super) fn events<K: Debug + Send>(
    what: &'static str,
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    metrics: Metrics,
) -> impl Stream<Item = Event<K>> + Send {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times();
    let mut failing = false;
    stream.backoff(ExponentialBackoff::from(pauses)).filter_map(move |event| {
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
                    tracing::warn!(what, %error, "watch failed, trying again{}", advice(&error));
                    failing = true;
                }
                None
            }
        })
    })
}

/// What a person can do about it, where that is known.
fn advice(error: &watcher::Error) -> &'static str {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return "";
    };
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            ": the CustomResourceDefinitions are not installed, apply manifests/crds"
        }
        kube::Error::Api(status) if status.code == 403 => {
            ": the operator's ClusterRole lacks the right, apply manifests/base"
        }
        _ => "",
    }
}
