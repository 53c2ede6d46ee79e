use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use futures::FutureExt;
use tokio::sync::Semaphore;

use super::*;

/// Somebody who is asked for the version.
struct Store {
    may_answer: Semaphore,
    answered: AtomicUsize,
}

/// Answers the question so many times as it may, with the last of these for ever.
fn asked(revisions: &Revisions, pace: Pace, answers: &'static [Option<u64>]) -> Arc<Store> {
    let store = Arc::new(Store { may_answer: Semaphore::new(0), answered: AtomicUsize::new(0) });
    let asked = Arc::clone(&store);
    tokio::spawn(revisions.clone().follow_by(pace, move || {
        let store = Arc::clone(&asked);
        async move {
            store.may_answer.acquire().await.unwrap().forget();
            let before = store.answered.fetch_add(1, Ordering::Relaxed);
            let answer = answers[before.min(answers.len() - 1)].map(Some);
            answer.ok_or(kube::Error::LinesCodecMaxLineLengthExceeded)
        }
    }));
    store
}

#[tokio::test]
async fn watches_begin_anew_where_the_store_went_back_and_only_there() {
    let revisions = Revisions::default();
    let begun = AtomicUsize::new(0);
    let events = revisions.watch(|| {
        let number = begun.fetch_add(1, Ordering::Relaxed);
        stream::iter([Ok::<_, ()>(number)]).chain(stream::pending())
    });
    let mut events = pin!(events);
    assert_eq!(events.next().await, Some(Ok(0)));
    let pace = Pace { every: Duration::from_millis(20), soon: Duration::from_millis(20) };
    let store = asked(&revisions, pace, &[Some(100), Some(100), Some(120), None, Some(70), Some(80)]);
    let next = async |count: usize| {
        store.may_answer.add_permits(count - store.answered.load(Ordering::Relaxed));
        while store.answered.load(Ordering::Relaxed) < count {
            sleep(Duration::from_millis(1)).await;
        }
    };
    next(4).await;
    assert_eq!(events.next().now_or_never(), None, "as ever, and then no answer");
    next(5).await;
    assert_eq!(events.next().now_or_never(), Some(Some(Ok(1))));
    next(8).await;
    assert_eq!(events.next().now_or_never(), None);
}

#[tokio::test]
async fn who_has_lost_a_watch_looks_soon_and_nobody_looks_often() {
    let revisions = Revisions::default();
    let pace = Pace { every: Duration::from_secs(3600), soon: Duration::from_millis(100) };
    let store = asked(&revisions, pace, &[Some(100)]);
    store.may_answer.add_permits(1000);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(store.answered.load(Ordering::Relaxed), 1);
    // All watches fail, again and again.
    let start = Instant::now();
    let mut events = pin!(revisions.watch(|| stream::repeat(Err::<(), _>(()))));
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(events.next().await, Some(Err(())));
        sleep(Duration::from_millis(1)).await;
    }
    let answered = store.answered.load(Ordering::Relaxed);
    assert!((3..=22).contains(&answered), "{answered}");
}
