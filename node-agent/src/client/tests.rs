//! An API server that dies: it takes what it is asked, and says nothing more.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Client, Config,
    api::{Api, DeleteParams, ListParams},
    runtime::watcher::{Event, watcher},
};

use l7egg_daemon::client::{SILENT_FOR, connect, connect_within};

use super::*;

/// The requests so far.
type Asked = Arc<Mutex<Vec<String>>>;

/// In the place of [`SILENT_FOR`].
const SILENCE: Duration = Duration::from_millis(500);

/// An API server with one namespace, that answers the first `answers` requests and no other.
async fn dies_after(answers: usize) -> (Config, Asked) {
    let asked = Asked::default();
    let answer = move |State(asked): State<Asked>, uri: Uri| async move {
        let number = {
            let mut asked = asked.lock().unwrap();
            asked.push(uri.to_string());
            asked.len()
        };
        if number > answers {
            std::future::pending::<()>().await;
        }
        if uri.to_string().contains("watch=true") {
            return Body::from_stream(stream::pending::<Result<String, io::Error>>()).into_response();
        }
        let list = r#"{"kind": "NamespaceList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": []}"#;
        Response::builder().status(StatusCode::OK).body(Body::from(list)).unwrap()
    };
    let router = Router::new().fallback(answer).with_state(Arc::clone(&asked));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (Config::new(url.parse().unwrap()), asked)
}

fn namespaces(client: &Client) -> Api<Namespace> {
    Api::all(client.clone())
}

/// What a watch brings until there were so many requests.
async fn watch_until(config: &Config, asked: &Asked, requests: usize) -> Vec<Event<Namespace>> {
    watch(watched(), config, asked, requests).await
}

async fn watch(
    what: watcher::Config,
    config: &Config,
    asked: &Asked,
    requests: usize,
) -> Vec<Event<Namespace>> {
    let client = connect_within(config, SILENCE).unwrap();
    let mut events = Vec::new();
    let mut stream = std::pin::pin!(watcher(namespaces(&client), what));
    let all = async {
        while asked.lock().unwrap().len() < requests {
            tokio::select! {
                event = stream.next() => events.extend(event.unwrap()),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("it is asked again");
    events
}

#[tokio::test]
async fn a_silent_watch_goes_on_from_where_it_was() {
    let (config, asked) = dies_after(2).await;
    let events = watch_until(&config, &asked, 3).await;
    assert!(asked.lock().unwrap()[2].contains("watch=true"), "no list: {asked:?}");
    assert!(asked.lock().unwrap()[2].contains("resourceVersion=7"), "{asked:?}");
    assert!(matches!(events[..], [Event::Init, Event::InitDone]), "{events:?}");
}

#[tokio::test]
async fn a_list_and_the_start_of_a_watch_that_nobody_answers_are_tried_again() {
    for answers in [0, 1] {
        let (config, asked) = dies_after(answers).await;
        watch_until(&config, &asked, answers + 2).await;
    }
}

#[tokio::test]
async fn lists_come_from_the_cache_where_they_may() {
    let first = async |what| {
        let (config, asked) = dies_after(1).await;
        watch(what, &config, &asked, 1).await;
        asked.lock().unwrap()[0].clone()
    };
    let cached = first(cached()).await;
    assert!(cached.contains("resourceVersion=0&resourceVersionMatch=NotOlderThan"), "{cached}");
    assert!(!cached.contains("limit="), "{cached}");
    assert!(!first(watched()).await.contains("resourceVersion"));
}

#[tokio::test]
async fn a_connection_that_was_idle_for_long_is_no_error() {
    let (config, _) = dies_after(5).await;
    let client = connect_within(&config, SILENCE).unwrap();
    for idle in [0, 200, 490, 510, 800] {
        tokio::time::sleep(Duration::from_millis(idle)).await;
        let list = namespaces(&client).list(&ListParams::default()).await;
        assert!(list.is_ok(), "after {idle} ms: {list:?}");
    }
}

#[tokio::test]
async fn a_write_does_not_wait_for_ever() {
    let (config, _) = dies_after(0).await;
    let client = connect(&config).unwrap();
    let api = namespaces(&client);
    let parameters = DeleteParams::default();
    let error = within(Duration::from_millis(100), api.delete("shop", &parameters)).await.unwrap_err();
    assert!(error.to_string().contains("within 100ms"), "{error}");
}

#[test]
fn watches_do_not_end_together_and_before_they_are_given_up() {
    let ends: BTreeSet<u32> = (0..100).map(|_| watched().timeout.unwrap()).collect();
    assert!(ends.len() > 3, "{ends:?}");
    let last = Duration::from_secs(u64::from(*ends.last().unwrap()) + 5);
    assert!(last < SILENT_FOR, "{ends:?}");
}

#[test]
fn who_is_busy_is_told_from_who_refuses() {
    let answer = |code, reason: &str| {
        let status = kube::core::Status { code, reason: reason.into(), ..kube::core::Status::default() };
        kube::Error::Api(Box::new(status))
    };
    let busy =
        [(429, "TooManyRequests"), (503, "ServiceUnavailable"), (504, "Timeout"), (500, "ServerTimeout")];
    assert!(busy.iter().all(|(code, reason)| has_no_time(&answer(*code, reason))));
    let refuses = [(403, "Forbidden"), (422, "Invalid"), (500, "InternalError"), (404, "NotFound")];
    assert!(!refuses.iter().any(|(code, reason)| has_no_time(&answer(*code, reason))));
    let late = io::Error::new(io::ErrorKind::TimedOut, "late");
    assert!(has_no_time(&kube::Error::Service(late.into())));
}
