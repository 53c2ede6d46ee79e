//! What waits, and what does not wait for it.

use super::*;

/// A control loop that turns when it is told to, at any time.
struct Still {
    controller: Controller,
    bench: Bench,
    now: Instant,
}

impl Still {
    /// With an Egg whose rate its pods share, and one of these; all is written.
    async fn start() -> Self {
        let (mut controller, bench) = connected(true);
        (controller.settled, controller.writes) = (true, true);
        let mut still = Still { controller, bench, now: Instant::now() };
        still.tell(News::Egg(Change::Set(shaped(1, "u"))));
        still.tell(News::Namespace(Change::Set(namespace(false))));
        still.tell(News::Pod(Change::Set(pod())));
        assert_eq!(still.requests_after(0).await, [APPLY, STATUS]);
        still
    }

    fn tell(&mut self, news: News) {
        self.controller.take_in(news);
    }

    fn tell_pod(&mut self, name: &str, node: &str) {
        self.tell(News::Pod(Change::Set(crate::index::Pod { node: node.to_owned(), ..named(name) })));
    }

    /// The requests that are made so much later.
    async fn requests_after(&mut self, milliseconds: u64) -> Vec<String> {
        self.now += Duration::from_millis(milliseconds);
        self.controller.turn(self.now);
        while let Some(done) = self.controller.running.join_next().await {
            self.controller.finish(done.unwrap());
            self.controller.turn(self.now);
        }
        let mut requests = std::mem::take(&mut *self.bench.requests.lock().unwrap());
        requests.sort();
        requests
    }

    /// Pods come and go, until the status has to wait for more than a second; then there is something to tell.
    async fn churn(&mut self) {
        for number in 0..8 {
            self.tell_pod(&format!("churn{number}"), "n1");
            let due = self.controller.paces.wait(&status(), &limits::STATUS, self.now);
            self.now = due.unwrap_or(self.now) + Duration::from_millis(250);
            assert!(self.requests_after(0).await.contains(&STATUS.to_owned()));
        }
        self.tell_pod("last", "n1");
        assert_eq!(self.requests_after(250).await, [APPLY]);
        let due = self.controller.paces.wait(&status(), &limits::STATUS, self.now);
        assert!(due > Some(self.now + Duration::from_secs(2)));
    }

    /// Pods come elsewhere, until a share has to wait for more than a second; then one waits.
    async fn share(&mut self) {
        for number in 0..4 {
            self.tell_pod(&format!("shares{number}"), "n2");
            let due = self.controller.paces.wait(&assignment(), &limits::SHARES, self.now);
            self.now = due.unwrap_or(self.now);
            assert!(self.requests_after(0).await.contains(&APPLY.to_owned()));
        }
        self.share_waits("last").await;
    }

    async fn share_waits(&mut self, name: &str) {
        self.tell_pod(name, "n2");
        assert!(!self.requests_after(300).await.contains(&APPLY.to_owned()));
    }

    /// What is said to be wrong with the Egg's assignments.
    fn troubles(&mut self) -> Vec<String> {
        let summary = self.controller.index.summary(&EggKey::egg("shop", "web")).unwrap();
        let subjects = summary.tally.pending.into_iter().map(|trouble| trouble.subject);
        subjects.filter(|subject| subject.starts_with("the assignment")).collect()
    }
}

fn shaped(generation: i64, uid: &str) -> crate::index::Egg {
    let shaped = json!({"podSelector": {}, "shaping": {"egress": {"rate": "50M", "scope": "Egg"}}});
    crate::index::Egg { generation, uid: uid.to_owned(), ..egg(shaped) }
}

fn status() -> Task {
    Task::Status(EggKey::egg("shop", "web"))
}

fn assignment() -> Task {
    Task::Assignment(ObjectKey::new("shop", "web.n1"))
}

#[tokio::test]
async fn who_edits_does_not_wait_because_pods_come_and_go() {
    let mut still = Still::start().await;
    still.churn().await;
    still.tell(News::Egg(Change::Set(shaped(2, "u"))));
    assert!(still.requests_after(1).await.contains(&STATUS.to_owned()));
}

#[tokio::test]
async fn an_egg_that_is_made_anew_is_told_of_within_a_second() {
    let mut still = Still::start().await;
    still.churn().await;
    let mut told = 0;
    for number in 0..100 {
        still.tell(News::Egg(Change::Gone(EggKey::egg("shop", "web"))));
        still.tell(News::Egg(Change::Set(shaped(1, &format!("v{number}")))));
        let requests = still.requests_after(100).await;
        told += requests.iter().filter(|request| *request == STATUS).count();
        assert!(number != 10 || told > 0);
    }
    assert!((8..=10).contains(&told), "{told}");
}

#[tokio::test]
async fn what_somebody_takes_away_or_changes_is_put_back_though_a_share_waits() {
    let mut still = Still::start().await;
    still.share().await;
    still.tell(News::Assignment(Change::Gone(ObjectKey::new("shop", "web.n1"))));
    assert!(still.requests_after(0).await.contains(&APPLY.to_owned()));
    // The label that its agent finds it by, or what it says.
    let observed = |still: &Still| {
        let observed = still.controller.index.observed(&ObjectKey::new("shop", "web.n1"));
        Observed { resource_version: 10, ..observed.unwrap().clone() }
    };
    still.share_waits("unlabelled").await;
    let unlabelled = Observed { labelled: false, ..observed(&still) };
    still.tell(News::Assignment(Change::Set(unlabelled)));
    assert!(still.requests_after(0).await.contains(&APPLY.to_owned()));
    still.share_waits("changed").await;
    let mut changed = observed(&still);
    changed.assignment.as_mut().unwrap().pods.clear();
    still.tell(News::Assignment(Change::Set(changed)));
    assert!(still.requests_after(0).await.contains(&APPLY.to_owned()));
    // But a share that somebody changes is a share.
    still.share_waits("share").await;
    let mut share = observed(&still);
    share.assignment.as_mut().unwrap().shares.clear();
    still.tell(News::Assignment(Change::Set(share)));
    assert!(!still.requests_after(300).await.contains(&APPLY.to_owned()));
}

#[tokio::test]
async fn what_agents_report_does_not_hasten_what_was_refused() {
    let mut still = Still::start().await;
    still.bench.code.store(422, Ordering::Relaxed);
    still.tell_pod("b", "n1");
    assert!(still.requests_after(1_000).await.contains(&APPLY.to_owned()));
    let observed = still.controller.index.observed(&ObjectKey::new("shop", "web.n1")).unwrap().clone();
    for number in 1..4 {
        let mut reported = Observed { resource_version: 10 + number, ..observed.clone() };
        reported.status.observed_generation = i64::try_from(number).ok();
        still.tell(News::Assignment(Change::Set(reported)));
        // Just before it is tried again anyway.
        still.now = still.controller.queue.next_due().unwrap() - Duration::from_millis(1);
        assert!(!still.requests_after(0).await.contains(&APPLY.to_owned()));
    }
}

#[tokio::test]
async fn what_failed_as_the_api_server_was_away_has_no_pace() {
    let mut still = Still::start().await;
    still.bench.code.store(500, Ordering::Relaxed);
    still.tell_pod("b", "n2");
    let mut attempts = Vec::new();
    for _ in 0..8 {
        attempts.extend(still.requests_after(1_000).await);
    }
    for what in [APPLY, STATUS] {
        assert!(attempts.iter().filter(|attempt| *attempt == what).count() >= 6, "{attempts:?}");
    }
    still.bench.code.store(200, Ordering::Relaxed);
    still.requests_after(2_000).await;
    let due = still.controller.paces.wait(&status(), &limits::STATUS, still.now);
    assert!(due <= Some(still.now + Duration::from_millis(200)));
    let due = still.controller.paces.wait(&assignment(), &limits::SHARES, still.now);
    assert!(due <= Some(still.now + Duration::from_secs(1)));
}

#[tokio::test]
async fn an_error_is_told_as_long_as_there_is_something_to_write() {
    let mut still = Still::start().await;
    still.bench.code.store(422, Ordering::Relaxed);
    still.tell_pod("b", "n1");
    still.requests_after(1_000).await;
    assert_eq!(still.troubles(), ["the assignment for n1"]);
    still.tell(News::Pod(Change::Gone(named("b").key())));
    still.requests_after(1_000).await;
    assert_eq!(still.troubles(), [""; 0], "it is as it is to be");
    still.tell_pod("c", "n2");
    still.requests_after(1_000).await;
    let of_n2 = "the assignment for n2".to_owned();
    assert!(still.troubles().contains(&of_n2));
    still.tell(News::Pod(Change::Gone(named("c").key())));
    still.requests_after(1_000).await;
    still.tell_pod("c", "n2");
    still.controller.index.take_changes();
    assert!(
        !still.troubles().contains(&of_n2),
        "what was said of one that was not to be any more is forgotten"
    );
    still.tell_pod("d", "n2");
    still.requests_after(1_000).await;
    still.tell(News::Namespace(Change::Set(namespace(true))));
    still.tell_pod("e", "n2");
    still.requests_after(1_000).await;
    assert!(still.troubles().contains(&of_n2), "too late for it");
}
