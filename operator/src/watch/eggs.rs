//! The watches of Eggs, with a judgement on the way.

use std::pin::pin;
use std::time::Instant;

use futures::{Stream, StreamExt};
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Change, News};
use crate::index::{Egg, EggKey};
use crate::judging::{Judgement, Judging};
use crate::pace::sleep_until;

/// Most Eggs of a kind that are judged at a time: one that takes long leaves the other place to the others.
const AT_ONCE: usize = 2;

/// Passes on what a watch brings, each Egg when `judge` has said what is to be said of it.
///
/// # Panics
/// When `judge` does.
pub(super) async fn forward_judged(
    events: impl Stream<Item = Event<DynamicObject>> + Send,
    news: mpsc::Sender<News>,
    mut judging: Judging,
    judge: fn(&EggKey, &Value) -> Judgement,
    to_news: fn(Change<Egg, EggKey>) -> News,
) {
    let mut events = pin!(events);
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(job) = judging.next_job(Instant::now())
        {
            // On a thread of its own: seconds of computing in a task would hold up the tasks that wait for its thread.
            running.spawn_blocking(move || job.done(judge));
        }
        let due = judging.next_due().filter(|_| running.len() < AT_ONCE);
        let changes = tokio::select! {
            event = events.next() => match event {
                Some(event) => judging.told(event),
                None => return,
            },
            Some(judged) = running.join_next(), if !running.is_empty() => match judged {
                Ok(judged) => judging.judged(judged).into_iter().collect(),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => Vec::new(),
            },
            () = sleep_until(due), if due.is_some() => Vec::new(),
        };
        for change in changes {
            if news.send(to_news(change)).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use futures::stream;
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;
    use crate::read::{egg_key, judge, judged_safely};

    fn object(namespace: &str) -> Event<DynamicObject> {
        Event::Apply(
            serde_json::from_value(json!({
                "apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg",
                "metadata": {"namespace": namespace, "name": "a", "uid": "u", "generation": 1},
                "spec": {"podSelector": {}},
            }))
            .unwrap(),
        )
    }

    /// The news of Eggs of these namespaces as they are judged by this.
    fn news_of(namespaces: &[&str], judge: fn(&EggKey, &Value) -> Judgement) -> mpsc::Receiver<News> {
        let (sender, news) = mpsc::channel(100);
        let told: Vec<_> = namespaces.iter().map(|namespace| object(namespace)).collect();
        let events = stream::iter(told).chain(stream::pending());
        tokio::spawn(forward_judged(events, sender, Judging::new(egg_key), judge, News::Egg));
        news
    }

    async fn next_egg(news: &mut mpsc::Receiver<News>) -> Egg {
        loop {
            let next = timeout(Duration::from_secs(10), news.recv()).await.expect("news").expect("news");
            if let News::Egg(Change::Set(egg)) = next {
                return egg;
            }
        }
    }

    #[tokio::test]
    async fn a_panic_over_one_egg_is_no_end_of_the_others() {
        let mut news = news_of(&["bad", "good"], |key, spec| {
            judged_safely(key, || {
                assert_ne!(key.namespace.as_deref(), Some("bad"), "such a spec");
                judge(key, spec)
            })
        });
        let eggs = [next_egg(&mut news).await, next_egg(&mut news).await];
        let [bad, good] = ["bad", "good"].map(|namespace| {
            eggs.iter().find(|egg| egg.key.namespace.as_deref() == Some(namespace)).expect(namespace)
        });
        assert_eq!(bad.spec.as_ref().unwrap_err().reason, "Malformed");
        assert!(good.spec.is_ok());
    }

    /// With one thread for all tasks, as on a machine with one processor.
    #[tokio::test(flavor = "current_thread")]
    async fn judging_stops_neither_the_other_tasks_nor_the_other_eggs() {
        static IS_ENOUGH: AtomicBool = AtomicBool::new(false);
        let mut news = news_of(&["heavy", "light"], |key, spec| {
            while key.namespace.as_deref() == Some("heavy") && !IS_ENOUGH.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            judge(key, spec)
        });
        assert_eq!(next_egg(&mut news).await.key, EggKey::egg("light", "a"));
        IS_ENOUGH.store(true, Ordering::Relaxed);
        assert_eq!(next_egg(&mut news).await.key, EggKey::egg("heavy", "a"));
    }
}
