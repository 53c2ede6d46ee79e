//! What the API server tells: each kind of object in a task of its own, as inputs of the reconciler.

use std::{
    fmt::Debug,
    sync::{Arc, mpsc},
    time::Duration,
};

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
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    causes::causes,
    client::{cached, watched},
    kinds::Kind,
    reconcile::Input,
    selected::{self, ClusterEggObject, EggObject, News, PodObject},
};

/// A watch that has failed fails again within this, or is well: it pauses for ten seconds at most, has ten for a connection, ten to ask,
/// and is given up where the API server is silent for 65. One that goes on from where it was says nothing until something changes.
const WELL_AFTER: Duration = Duration::from_secs(100);

/// Most inputs of one watch that wait to be taken in, while a pass is made: an assignment comes as it is, with megabytes maybe, of
/// others only what counts.
fn most_waiting(kind: Kind) -> usize {
    if kind == Kind::Assignments { 64 } else { 1024 }
}

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
    let permits = Arc::new(Semaphore::new(most_waiting(kind)));
    let mut lost = None;
    let is_well = || {
        tracing::info!(what = %kind, "watched again");
        inputs.send(Input::Unwatched(kind, None)).is_ok()
    };
    loop {
        let next = match lost {
            None => Ok(events.next().await),
            Some(_) => timeout(WELL_AFTER, events.next()).await,
        };
        let event = match next {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(_) => {
                lost = None;
                if !is_well() {
                    return;
                }
                continue;
            }
        };
        match event {
            Ok(event) => {
                // A list begins before the API server has been asked for it.
                if !matches!(event, Event::Init) && lost.take().is_some() && !is_well() {
                    return;
                }
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                if inputs.send(Input::Counted(Box::new(to_input(event)), permit)).is_err() {
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

    fn counted(input: Input) -> Input {
        match input {
            Input::Counted(input, _) => *input,
            other => other,
        }
    }

    async fn within_seconds<T>(work: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(10), work).await.expect("it comes")
    }

    #[tokio::test]
    async fn no_more_wait_than_there_is_room_for() {
        let (inputs, received) = mpsc::channel();
        let events = || stream::iter((0..100).map(|_| Ok(Event::Apply(()))));
        let most = most_waiting(Kind::Assignments);
        let follow = |inputs| tokio::spawn(follow(Kind::Assignments, events(), inputs, |_| Input::Stop));
        let task = follow(inputs);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let waiting: Vec<Input> = received.try_iter().collect();
        assert_eq!(waiting.len(), most);
        drop(waiting);
        within_seconds(task).await.unwrap();
        assert_eq!(received.try_iter().count(), 100 - most);

        // Nobody takes them in any more.
        let (inputs, received) = mpsc::channel();
        let task = follow(inputs);
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(received);
        within_seconds(task).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_goes_on_without_news_is_well() {
        let (inputs, received) = mpsc::channel();
        let fails = stream::iter([Err(watcher::Error::NoResourceVersion)]);
        let events = fails.chain(stream::pending::<watcher::Result<Event<()>>>());
        let task = tokio::spawn(follow(Kind::Eggs, events, inputs, |_| Input::Stop));
        tokio::time::sleep(WELL_AFTER / 2).await;
        let told = || received.try_iter().map(|input| format!("{input:?}")).collect::<Vec<_>>();
        assert!(matches!(told().as_slice(), [one] if one.starts_with("Unwatched(Eggs, Some")));
        tokio::time::sleep(WELL_AFTER).await;
        assert_eq!(told(), ["Unwatched(Eggs, None)"]);
        task.abort();
    }

    #[tokio::test]
    async fn why_nothing_comes_is_passed_on_once() {
        let error = || Err(watcher::Error::NoResourceVersion);
        let events = [error(), error(), Ok(Event::Init), Ok(Event::<()>::InitDone), Ok(Event::Init)];
        let (inputs, received) = mpsc::channel();
        follow(Kind::Eggs, stream::iter(events), inputs, |_| Input::Stop).await;
        let received: Vec<String> = received.iter().map(|input| format!("{:?}", counted(input))).collect();
        let told = ["Unwatched(Eggs, Some", "Stop", "Unwatched(Eggs, None", "Stop", "Stop"];
        assert!(received.iter().zip(told).all(|(input, told)| input.starts_with(told)), "{received:?}");
        assert_eq!(received.len(), told.len());
    }
}
