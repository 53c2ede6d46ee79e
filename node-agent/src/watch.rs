//! What the API server tells: each kind of object in a task of its own, as inputs of the reconciler.

use std::{fmt::Debug, sync::mpsc};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use l7egg_crds::{EggAssignment, NODE_LABEL, node_label_value};
use l7egg_daemon::{pauses::Pauses, revisions::Revisions};

use crate::{
    causes::causes,
    client::{cached, watched},
    kinds::Kind,
    reconcile::Input,
    selected::{self, ClusterEggObject, EggObject, News, PodObject},
};

/// Watches the assignments of a node.
pub fn assignments(client: &Client, revisions: &Revisions, node: &str, inputs: &mpsc::Sender<Input>) {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<EggAssignment>(&()));
    let ours = watched().labels(&format!("{NODE_LABEL}={}", node_label_value(node)));
    tokio::spawn(follow(Kind::Assignments, revisions.watcher(api, ours), inputs.clone(), |event| {
        Input::Assignments(Box::new(event))
    }));
}

/// Watches the pods of a node.
pub fn pods(client: &Client, revisions: &Revisions, node: &str, inputs: &mpsc::Sender<Input>) {
    let here = cached().fields(&format!("spec.nodeName={node}"));
    let stream = revisions.watcher(Api::<PodObject>::all(client.clone()), here);
    tokio::spawn(follow(Kind::Pods, stream, inputs.clone(), |event| {
        Input::Selected(News::Pod(map(event, selected::pod)))
    }));
}

/// Watches all Eggs and ClusterEggs.
pub fn eggs(client: &Client, revisions: &Revisions, inputs: &mpsc::Sender<Input>) {
    let stream = revisions.watcher(Api::<EggObject>::all(client.clone()), cached());
    tokio::spawn(follow(Kind::Eggs, stream, inputs.clone(), |event| {
        Input::Selected(News::Egg(map(event, selected::egg)))
    }));
    let stream = revisions.watcher(Api::<ClusterEggObject>::all(client.clone()), cached());
    tokio::spawn(follow(Kind::ClusterEggs, stream, inputs.clone(), |event| {
        Input::Selected(News::ClusterEgg(map(event, selected::cluster_egg)))
    }));
}

/// Watches all namespaces: their labels, and whether they are ending.
pub fn namespaces(client: &Client, revisions: &Revisions, inputs: &mpsc::Sender<Input>) {
    let stream = revisions.watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), cached());
    tokio::spawn(follow(Kind::Namespaces, stream, inputs.clone(), |event| {
        Input::Selected(News::Namespace(map(event, selected::namespace)))
    }));
}

/// Passes on what a watch brings, for as long as somebody listens. Errors are the watch's to mend: it tries again after a
/// pause.
async fn follow<K: Debug>(
    kind: Kind,
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    inputs: mpsc::Sender<Input>,
    to_input: impl Fn(Event<K>) -> Input,
) {
    let events = stream.backoff(Pauses::default());
    pin_mut!(events);
    let mut lost = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A list begins before the API server has been asked for it.
                if lost.is_some() && !matches!(event, Event::Init) {
                    lost = None;
                    tracing::info!(what = %kind, "watched again");
                    if inputs.send(Input::Unwatched(kind, None)).is_err() {
                        return;
                    }
                }
                if inputs.send(to_input(event)).is_err() {
                    return;
                }
            }
            // A watch that was away for too long starts over; nobody has to know.
            Err(watcher::Error::WatchError(status)) if status.code == 410 => {}
            Err(error) => {
                let error = causes(&error);
                if lost.is_some() {
                    tracing::debug!(what = %kind, error, "still cannot be watched");
                } else {
                    tracing::warn!(what = %kind, error, "cannot be watched, tried again; what is enforced stays");
                }
                if lost.as_ref() != Some(&error) {
                    let _ = inputs.send(Input::Unwatched(kind, Some(error.clone())));
                }
                lost = Some(error);
            }
        }
    }
}

fn map<A, B>(event: Event<A>, read: impl Fn(A) -> B) -> Event<B> {
    match event {
        Event::Apply(object) => Event::Apply(read(object)),
        Event::Delete(object) => Event::Delete(read(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(read(object)),
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn why_nothing_comes_is_passed_on_once() {
        let error = || Err(watcher::Error::NoResourceVersion);
        let events = [error(), error(), Ok(Event::Init), Ok(Event::<()>::InitDone), Ok(Event::Init)];
        let (inputs, received) = mpsc::channel();
        follow(Kind::Eggs, stream::iter(events), inputs, |_| Input::Stop).await;
        let received: Vec<String> = received.iter().map(|input| format!("{input:?}")).collect();
        let told = ["Unwatched(Eggs, Some", "Stop", "Unwatched(Eggs, None", "Stop", "Stop"];
        assert!(received.iter().zip(told).all(|(input, told)| input.starts_with(told)), "{received:?}");
        assert_eq!(received.len(), told.len());
    }
}
