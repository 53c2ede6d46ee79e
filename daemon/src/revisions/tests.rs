use std::{
    pin::pin,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures::FutureExt;

use super::*;

/// Answers to the question for the version, the last one for ever; and how often it was asked.
fn asked(revisions: &Revisions, pace: Pace, answers: &'static [Option<u64>]) -> Arc<Mutex<usize>> {
    let times = Arc::new(Mutex::new(0));
    let told = Arc::clone(&times);
    tokio::spawn(revisions.clone().follow_by(pace, move || {
        let mut times = told.lock().unwrap();
        *times += 1;
        let answer = answers[(*times).min(answers.len()) - 1].map(Some);
        std::future::ready(answer.ok_or(kube::Error::LinesCodecMaxLineLengthExceeded))
    }));
    times
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
    let pace = Pace { every: Duration::from_millis(100), soon: Duration::from_millis(100) };
    let times = asked(&revisions, pace, &[Some(100), Some(100), Some(120), None, Some(70), Some(80)]);
    let next = async |count: usize| {
        while *times.lock().unwrap() < count {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(1)).await;
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
    let times = asked(&revisions, pace, &[Some(100)]);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(*times.lock().unwrap(), 1);
    // All watches fail, again and again.
    let start = Instant::now();
    let mut events = pin!(revisions.watch(|| stream::repeat(Err::<(), _>(()))));
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(events.next().await, Some(Err(())));
        sleep(Duration::from_millis(1)).await;
    }
    let times = *times.lock().unwrap();
    assert!((3..=22).contains(&times), "{times}");
}
