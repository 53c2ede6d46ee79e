//! What the API server has, as a stream of news.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::{Client, ResourceExt};
use l7egg_crds::{ClusterEgg, Egg as ApiEgg, EggAssignment};
use tokio::sync::mpsc;

use crate::index::{Egg, EggKey, Labels, Node, ObjectKey, Observed, Pod};
use crate::metrics::Metrics;
use crate::read::{self, Judged, Judgement, NodeObject, PodObject};
use crate::services::Services;
use crate::write::{MANAGED_BY_LABEL, MANAGER};

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
    Namespace(Change<(String, Labels), String>),
    /// Of nodes.
    Node(Change<Node, String>),
    /// Of EggAssignments.
    Assignment(Change<Observed, ObjectKey>),
}

/// Starts to watch everything, each kind in its own task. Pods' bandwidth annotations are read only if they are
/// `annotated`.
pub fn start(
    services: &mut Services,
    client: &Client,
    news: &mpsc::Sender<News>,
    metrics: &Metrics,
    annotated: bool,
) {
    let (eggs, cluster_eggs) = (ApiResource::erase::<ApiEgg>(&()), ApiResource::erase::<ClusterEgg>(&()));
    let assignments = ApiResource::erase::<EggAssignment>(&());
    let all = watcher::Config::default();
    let ours = all.clone().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
    let bound = all.clone().fields(POD_FIELDS);

    let dynamic = |resource: &ApiResource| Api::<DynamicObject>::all_with(client.clone(), resource);
    let stream = watcher::watcher(dynamic(&eggs), all.clone());
    let judged = Judged::default();
    services.spawn(
        "watch of eggs",
        forward("eggs", stream, news.clone(), metrics.clone(), move |event| {
            egg_change(&judged, event, read::egg_judged, read::egg_key).map(News::Egg)
        }),
    );
    let stream = watcher::watcher(dynamic(&cluster_eggs), all.clone());
    let judged = Judged::default();
    services.spawn(
        "watch of clustereggs",
        forward("clustereggs", stream, news.clone(), metrics.clone(), move |event| {
            egg_change(&judged, event, read::cluster_egg_judged, read::cluster_egg_key).map(News::ClusterEgg)
        }),
    );
    let stream = watcher::watcher(dynamic(&assignments), ours);
    services.spawn(
        "watch of eggassignments",
        forward("eggassignments", stream, news.clone(), metrics.clone(), |event| {
            change(event, |object| read::observed(&object), object_key).map(News::Assignment)
        }),
    );
    let stream = watcher::watcher(Api::<PodObject>::all(client.clone()), bound);
    services.spawn(
        "watch of pods",
        forward("pods", stream, news.clone(), metrics.clone(), move |event| {
            change(event, |object| read::pod(object, annotated), object_key).map(News::Pod)
        }),
    );
    let stream = watcher::watcher(Api::<NodeObject>::all(client.clone()), all.clone());
    services.spawn(
        "watch of nodes",
        forward("nodes", stream, news.clone(), metrics.clone(), |event| {
            change(event, read::node, |object| object.metadata.name.clone()).map(News::Node)
        }),
    );
    let stream = watcher::watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all);
    services.spawn(
        "watch of namespaces",
        forward("namespaces", stream, news.clone(), metrics.clone(), |event| {
            change(event, namespace, |object| object.metadata.name.clone()).map(News::Namespace)
        }),
    );
}

/// Passes on what a watch brings. Errors are the watch's to mend: it tries again after a pause.
async fn forward<K: Debug>(
    what: &'static str,
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    news: mpsc::Sender<News>,
    metrics: Metrics,
    to_news: impl Fn(Event<K>) -> Option<News>,
) {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times();
    let mut stream = pin!(stream.backoff(ExponentialBackoff::from(pauses)));
    let mut failing = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                // A list begins before the API server has been asked for it.
                if failing && !matches!(event, Event::Init) {
                    tracing::info!(what, "watch works again");
                    failing = false;
                }
                if let Some(item) = to_news(event)
                    && news.send(item).await.is_err()
                {
                    return;
                }
            }
            Err(error) => {
                metrics.watch_failed(what);
                if failing {
                    tracing::debug!(what, %error, "watch still fails");
                } else {
                    tracing::warn!(what, %error, "watch failed, trying again{}", advice(&error));
                    failing = true;
                }
            }
        }
    }
}

/// As [`change`]; the spec of an Egg is judged once.
fn egg_change(
    judged: &Judged,
    event: Event<DynamicObject>,
    read: fn(&DynamicObject, Option<Judgement>) -> Option<Egg>,
    key: fn(&DynamicObject) -> Option<EggKey>,
) -> Option<Change<Egg, EggKey>> {
    let change = change(event, |object| judged.read(&object, &key(&object)?, read), key)?;
    match &change {
        Change::Listing => judged.listing(),
        Change::Listed => judged.listed(),
        Change::Gone(key) => judged.forget(key),
        Change::Set(_) => {}
    }
    Some(change)
}

/// An object without a name is none that the API server could have.
fn change<O, T, K>(
    event: Event<O>,
    read: impl Fn(O) -> Option<T>,
    key: impl Fn(&O) -> Option<K>,
) -> Option<Change<T, K>> {
    match event {
        Event::Init => Some(Change::Listing),
        Event::InitDone => Some(Change::Listed),
        Event::Apply(object) | Event::InitApply(object) => {
            let key = key(&object)?;
            Some(read(object).map_or(Change::Gone(key), Change::Set))
        }
        Event::Delete(object) => Some(Change::Gone(key(&object)?)),
    }
}

fn object_key<O: ResourceExt>(object: &O) -> Option<ObjectKey> {
    let meta = object.meta();
    Some(ObjectKey::new(meta.namespace.clone()?, meta.name.clone()?))
}

fn namespace(object: PartialObjectMeta<Namespace>) -> Option<(String, Labels)> {
    Some((object.metadata.name?, object.metadata.labels.unwrap_or_default()))
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
