//! How long the API server is waited for.

use std::{hash::BuildHasher, hash::RandomState, io, time::Duration};

use kube::runtime::watcher;

/// What writes one object, or an event, is answered within this.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Seconds after which the API server ends a watch, and how many more it may be. kube gives a watch up that brings nothing for five
/// seconds longer, and goes on from where it was without a list. Bookmarks would be a sign of life too, but API servers send none for
/// kinds of which nothing has changed since they started.
const WATCH_ENDS_AFTER: u32 = 45;
const WATCH_ENDS_LATER: u32 = 10;

/// What every watch is made from.
#[must_use]
pub fn watched() -> watcher::Config {
    // Each its own, so that what began anew at once, when an API server had gone, does not do so for ever.
    let later = RandomState::new().hash_one(()) % u64::from(WATCH_ENDS_LATER + 1);
    watcher::Config::default().timeout(WATCH_ENDS_AFTER + later as u32)
}

/// What a watch is made from whose lists may come from an API server's cache, as the kubelet's own do: lists of all nodes' agents at
/// once, read from etcd by a quorum, would be what an API server that has just come back can do least. Such a list can be a little
/// behind, where there are several API servers even behind what was told before; the watch goes on from there and brings the rest.
/// That is as if news came later, which is why a pod that no Egg is known to select stays new for ten seconds. It is not good enough for assignments: one that is missing in a list frees the pods that run under it.
#[must_use]
pub fn cached() -> watcher::Config {
    // With a size of pages kube leaves out the version 0 that asks for the cache, and the API server reads from etcd.
    watcher::Config { page_size: None, ..watched().any_semantic() }
}

/// The answer to what writes, or the error that there is none.
///
/// # Errors
/// As the request's own, and that it took too long.
pub async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    within(ANSWERED_WITHIN, request).await
}

/// Whether there is no API server that answers, or one that has too much to do: whoever asks leaves it alone for a while, whatever
/// else he has to ask.
#[must_use]
pub fn has_no_time(error: &kube::Error) -> bool {
    match error {
        // 500 ServerTimeout: etcd is too slow for it.
        kube::Error::Api(status) => {
            matches!(status.code, 429 | 503 | 504) || status.code == 500 && status.reason == "ServerTimeout"
        }
        // An answer to this one request that cannot be read.
        kube::Error::SerdeError(_) => false,
        _ => true,
    }
}

async fn within<T>(limit: Duration, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    tokio::time::timeout(limit, request).await.unwrap_or_else(|_| {
        let late = format!("no answer from the API server within {limit:?}");
        Err(kube::Error::Service(io::Error::new(io::ErrorKind::TimedOut, late).into()))
    })
}

#[cfg(test)]
mod tests;
