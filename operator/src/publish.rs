//! Events on their way to the API server.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::write::MANAGER;

/// Events that may wait to be sent.
const WAITING: usize = 1024;
/// Time that they have when the operator is to stop. The next operator finds the status that they are about
/// as it is to be, so it does not tell of it again.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// Sends events one by one, beside all else. Dropped, it sends no more.
pub struct Publisher {
    task: JoinSet<()>,
}

impl Publisher {
    /// With where its events are to be put, each with the object that it is about.
    pub fn start(client: Client, identity: &str) -> (Publisher, mpsc::Sender<(Event, ObjectReference)>) {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        let (sender, events) = mpsc::channel(WAITING);
        let mut task = JoinSet::new();
        task.spawn(publish(Recorder::new(client, reporter), events));
        (Publisher { task }, sender)
    }

    /// Sends what waits, as far as that takes no more than two seconds. The sender must be dropped before.
    pub async fn finish(mut self) {
        if tokio::time::timeout(LAST_EVENTS, self.task.join_next()).await.is_err() {
            tracing::debug!("events are lost: the API server takes them too slowly");
        }
    }
}

async fn publish(recorder: Recorder, mut events: mpsc::Receiver<(Event, ObjectReference)>) {
    while let Some((event, mut about)) = events.recv().await {
        let mut sent = recorder.publish(&event, &about).await;
        // API servers of 1.20 take no event in `default` about an object of no namespace.
        if let Err(kube::Error::Api(status)) = &sent
            && status.is_invalid()
            && about.namespace.is_none()
        {
            about.namespace = Some("default".to_owned());
            sent = recorder.publish(&event, &about).await;
        }
        if let Err(error) = sent {
            tracing::debug!(reason = %event.reason, name = ?about.name, %error, "event was not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use kube::client::Body;
    use kube::runtime::events::EventType;

    use super::*;

    /// An API server that takes an event only after a while, and how many it has taken.
    fn slow_server(pause: Duration) -> (Client, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let server = tower::service_fn(move |request: http::Request<Body>| {
            let count = count.clone();
            async move {
                tokio::time::sleep(pause).await;
                count.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(http::Response::new(request.into_body()))
            }
        });
        (Client::new(server, "default"), taken)
    }

    fn rejected(name: &str) -> (Event, ObjectReference) {
        let event = Event {
            type_: EventType::Warning,
            reason: "Rejected".to_owned(),
            note: None,
            action: "Accept".to_owned(),
            secondary: None,
        };
        let about = ObjectReference {
            namespace: Some("shop".to_owned()),
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        (event, about)
    }

    #[tokio::test]
    async fn what_waits_is_sent_before_the_end() {
        let (client, taken) = slow_server(Duration::from_millis(10));
        let (publisher, events) = Publisher::start(client, "operator-0");
        for number in 0..5 {
            events.send(rejected(&format!("egg-{number}"))).await.unwrap();
        }
        drop(events);
        assert_eq!(taken.load(Ordering::Relaxed), 0);
        publisher.finish().await;
        assert_eq!(taken.load(Ordering::Relaxed), 5);
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_answer_holds_up_no_end() {
        let (client, taken) = slow_server(Duration::from_secs(3600));
        let (publisher, events) = Publisher::start(client, "operator-0");
        events.send(rejected("egg")).await.unwrap();
        drop(events);
        let started = Instant::now();
        publisher.finish().await;
        assert!(started.elapsed() < LAST_EVENTS * 2);
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }
}
