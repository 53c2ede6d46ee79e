//! What the API server has, as a stream of news.

mod eggs;
mod events;

use std::fmt::Debug;
use std::pin::pin;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use l7egg_crds::{ClusterEgg, Egg as ApiEgg, EggAssignment};
use l7egg_daemon::revisions::Revisions;
use tokio::sync::mpsc;

use crate::index::{Egg, EggKey, NamedNamespace, Node, ObjectKey, Observed, Pod};
use crate::judging::Judging;
use crate::metrics::Metrics;
use crate::read::{self, NodeObject, PodObject, guarded};
use crate::services::Services;
use crate::write::{MANAGED_BY_LABEL, MANAGER};

use eggs::forward_judged;
use events::events;
pub(crate) use events::events_by;

/// Only pods that are bound and not finished: the API server leaves out the others, and reports those that
/// become so as deleted.
const POD_FIELDS: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// News of one kind of object.
#[derive(Debug)]
pub enum Change<T, K> {
    /// A list of all that there is begins.
    Listing,
    /// It is there, or has changed.
    Set(T),
    /// It is there, but what it says cannot be told, or not yet: what was known of it stays.
    Present(K),
    /// It is gone, or counts no longer.
    Gone(K),
    /// The list is complete: what was not in it is gone.
    Listed,
}

/// News.
#[derive(Debug)]
pub enum News {
    /// Of Eggs.
    Egg(Change<Egg, EggKey>),
    /// Of ClusterEggs.
    ClusterEgg(Change<Egg, EggKey>),
    /// Of pods.
    Pod(Change<Pod, ObjectKey>),
    /// Of namespaces.
    Namespace(Change<NamedNamespace, String>),
    /// Of nodes.
    Node(Change<Node, String>),
    /// Of EggAssignments.
    Assignment(Change<Observed, ObjectKey>),
}

/// Seconds after which the API server ends a watch, which goes on from where it was: so one whose connection is dead is given up a little
/// later. Bookmarks are no such sign of life, as API servers send none for kinds of which nothing has changed since they started.
pub const ENDS_AFTER: u32 = 50;

/// Starts to watch everything, each kind in its own task. Pods' bandwidth annotations are read only if they are
/// `annotated`.
pub fn start(
    services: &mut Services,
    client: &Client,
    news: &mpsc::Sender<News>,
    metrics: &Metrics,
    revisions: &Revisions,
    annotated: bool,
) {
    let (eggs, cluster_eggs) = (ApiResource::erase::<ApiEgg>(&()), ApiResource::erase::<ClusterEgg>(&()));
    let assignments = ApiResource::erase::<EggAssignment>(&());
    let all = watcher::Config::default().timeout(ENDS_AFTER);
    let ours = all.clone().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
    let bound = all.clone().fields(POD_FIELDS);

    let dynamic = |resource: &ApiResource| Api::<DynamicObject>::all_with(client.clone(), resource);
    let stream = events("eggs", revisions.watcher(dynamic(&eggs), all.clone()), metrics.clone());
    let judging = Judging::new(read::egg_key);
    services.spawn(
        "watch of eggs",
        forward_judged(stream, news.clone(), judging, read::judge_to_assign, News::Egg),
    );
    let stream =
        events("clustereggs", revisions.watcher(dynamic(&cluster_eggs), all.clone()), metrics.clone());
    let judging = Judging::new(read::cluster_egg_key);
    services.spawn(
        "watch of clustereggs",
        forward_judged(stream, news.clone(), judging, read::judge_to_assign, News::ClusterEgg),
    );
    let stream = events("eggassignments", revisions.watcher(dynamic(&assignments), ours), metrics.clone());
    services.spawn(
        "watch of eggassignments",
        forward(stream, news.clone(), |event| {
            change(event, |object| read::observed(&object), object_key).map(News::Assignment)
        }),
    );
    let pods = revisions.watcher(Api::<PodObject>::all(client.clone()), bound);
    let stream = events("pods", pods, metrics.clone());
    services.spawn(
        "watch of pods",
        forward(stream, news.clone(), move |event| {
            change(event, |object| read::pod(object, annotated), object_key).map(News::Pod)
        }),
    );
    let nodes = revisions.watcher(Api::<NodeObject>::all(client.clone()), all.clone());
    let stream = events("nodes", nodes, metrics.clone());
    services.spawn(
        "watch of nodes",
        forward(stream, news.clone(), |event| {
            change(event, read::node, |object| object.metadata.name.clone()).map(News::Node)
        }),
    );
    let namespaces = revisions.watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all);
    let stream = events("namespaces", namespaces, metrics.clone());
    services.spawn(
        "watch of namespaces",
        forward(stream, news.clone(), |event| {
            change(event, namespace, |object| object.metadata.name.clone()).map(News::Namespace)
        }),
    );
}

/// Passes on what a watch brings.
async fn forward<K: Debug>(
    events: impl Stream<Item = Event<K>> + Send,
    news: mpsc::Sender<News>,
    to_news: impl Fn(Event<K>) -> Option<News>,
) {
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        if let Some(item) = to_news(event)
            && news.send(item).await.is_err()
        {
            return;
        }
    }
}

/// An object without a name is none that the API server could have.
fn change<O, T, K: Debug>(
    event: Event<O>,
    read: impl Fn(O) -> Option<T>,
    key: impl Fn(&O) -> Option<K>,
) -> Option<Change<T, K>> {
    match event {
        Event::Init => Some(Change::Listing),
        Event::InitDone => Some(Change::Listed),
        Event::Apply(object) | Event::InitApply(object) => {
            let key = key(&object)?;
            Some(match guarded(|| read(object)) {
                Ok(value) => value.map_or(Change::Gone(key), Change::Set),
                Err(panic) => {
                    tracing::error!(
                        object = ?key, panic,
                        "cannot be read, which is a fault of the operator: please report it"
                    );
                    Change::Present(key)
                }
            })
        }
        Event::Delete(object) => Some(Change::Gone(key(&object)?)),
    }
}

fn object_key<O: ResourceExt>(object: &O) -> Option<ObjectKey> {
    let meta = object.meta();
    Some(ObjectKey::new(meta.namespace.clone()?, meta.name.clone()?))
}

fn namespace(object: PartialObjectMeta<Namespace>) -> Option<NamedNamespace> {
    let ObjectMeta { name, labels, deletion_timestamp, .. } = object.metadata;
    Some(NamedNamespace {
        name: name?,
        labels: labels.unwrap_or_default(),
        ends: deletion_timestamp.is_some(),
    })
}

#[cfg(test)]
mod tests;
