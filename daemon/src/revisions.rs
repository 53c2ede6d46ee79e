//! Whether the API server's store has gone back in time: where etcd was restored from a backup, the versions of objects begin again
//! at those of the backup. A watch goes on from the version that it saw last, which is now one of the future; the API server takes
//! that, and tells of no change until it comes there, hours later, without an error.

use std::{
    fmt::Debug,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource,
    api::{ListParams, ObjectList, PartialObjectMeta},
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

/// How often it is asked for the version.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// By itself, at most: what goes back by less is not noticed.
    every: Duration,
    /// After a watch has failed, and after there was no answer, at most. Who restores etcd stops the API servers, so that all watches fail.
    soon: Duration,
}

/// Of the agents of a thousand nodes that is some five requests a second, for one object each.
const PACE: Pace = Pace { every: Duration::from_secs(300), soon: Duration::from_secs(15) };

/// The version of the store, as it was seen last, for all watches of a program.
#[derive(Clone, Debug)]
pub struct Revisions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    is_wanted: Notify,
    /// How often the store went back.
    went_back: watch::Sender<u64>,
}

impl Default for Revisions {
    fn default() -> Self {
        Revisions(Arc::new(Shared { is_wanted: Notify::new(), went_back: watch::Sender::new(0) }))
    }
}

impl Revisions {
    /// As [`watcher()`], but that it begins anew, with a list, where the store has gone back.
    pub fn watcher<K>(
        &self,
        api: Api<K>,
        config: watcher::Config,
    ) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        self.watch(move || watcher(api.clone(), config.clone()))
    }

    fn watch<T, E, S: Stream<Item = Result<T, E>>, B: Fn() -> S>(
        &self,
        begin: B,
    ) -> impl Stream<Item = S::Item> + use<T, E, S, B> {
        let (went_back, events) = (self.0.went_back.subscribe(), Box::pin(begin()));
        let events =
            stream::unfold((begin, events, went_back), async |(begin, mut events, mut went_back)| {
                loop {
                    tokio::select! {
                        biased;
                        Ok(()) = went_back.changed() => events = Box::pin(begin()),
                        event = events.next() => return Some((event?, (begin, events, went_back))),
                    }
                }
            });
        let shared = Arc::clone(&self.0);
        events.inspect(move |event| {
            // Something may have happened to the API server.
            if event.is_err() {
                shared.is_wanted.notify_one();
            }
        })
    }

    /// Looks for as long as it is polled.
    pub async fn follow(self, client: Client) {
        let namespaces = Api::all(client);
        self.follow_by(PACE, || newest(namespaces.clone())).await;
    }

    async fn follow_by<F: Future<Output = kube::Result<Option<u64>>>>(self, pace: Pace, ask: impl Fn() -> F) {
        let mut last = None;
        loop {
            match ask().await {
                Ok(Some(now)) => {
                    if let Some(last) = last.filter(|last| now < *last) {
                        tracing::warn!(
                            last,
                            now,
                            "the API server's store has gone back in time, as when etcd is restored from a backup: everything is listed anew"
                        );
                        self.0.went_back.send_modify(|times| *times += 1);
                    }
                    last = Some(now);
                }
                // Versions are numbers wherever there is etcd; without, nothing is known of them.
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "no answer about the version of the API server's store");
                    sleep(some_of(pace.soon)).await;
                    continue;
                }
            }
            tokio::select! {
                () = sleep(some_of(pace.every)) => {}
                () = self.0.is_wanted.notified() => sleep(some_of(pace.soon)).await,
            }
        }
    }
}

/// The store's version now. A list of one, for which no version is asked, is as new as etcd.
async fn newest(namespaces: Api<Namespace>) -> kube::Result<Option<u64>> {
    let list: ObjectList<PartialObjectMeta<Namespace>> =
        namespaces.list_metadata(&ListParams::default().limit(1)).await?;
    Ok(list.metadata.resource_version.and_then(|version| version.parse().ok()))
}

/// Between half of it and all, so that a thousand nodes do not ask at once.
fn some_of(most: Duration) -> Duration {
    let by_chance = RandomState::new().hash_one(()) % 1024;
    most / 2 + most / 2 * by_chance as u32 / 1024
}

#[cfg(test)]
mod tests;
