//! How often is written, and what an API server that is too busy is asked.

use super::*;

/// How much longer it took than it was to: a machine that stands still for a while has had time for more.
fn late(start: Instant, planned: Duration) -> usize {
    usize::try_from(start.elapsed().saturating_sub(planned).as_millis()).unwrap()
}

#[tokio::test]
async fn a_pod_that_is_relabelled_all_the_time_costs_ever_fewer_writes() {
    let bench = start(true);
    bench.tell_all().await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        bench.tell(News::Pod(Change::Set(named("b")))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        bench.tell(News::Pod(Change::Gone(named("b").key()))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let requests = bench.requests().await;
    let more = late(start, Duration::from_millis(2_200)) / 250;
    let count = |what: &str| requests.iter().filter(|request| *request == what).count();
    // One of each was before. Assignments: four at once, then after 0.1 and 0.3 s, then every quarter of a second.
    assert!((5..=14 + more).contains(&count(APPLY)), "{requests:?}");
    assert!((3..=6 + more).contains(&count(STATUS)), "{requests:?}");
    bench.shutdown.cancel();
}

#[tokio::test]
async fn deleting_and_making_anew_is_writing_as_well() {
    let bench = start(true);
    bench.tell_all().await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        bench.tell(News::Egg(Change::Gone(EggKey::egg("shop", "web")))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        bench.tell(News::Egg(Change::Set(egg(json!({"podSelector": {}}))))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let requests = bench.requests().await;
    let more = late(start, Duration::from_millis(1_200)) / 250;
    assert!(requests.len() <= 7 + 6 + 2 * more, "{requests:?}");
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_part_of_a_shared_rate_has_time_and_a_new_pod_has_not() {
    let bench = start(true);
    bench.tell_all().await;
    let shaping = json!({"egress": {"rate": "50M", "scope": "Egg"}});
    let mut edited = egg(json!({"podSelector": {}, "shaping": shaping}));
    edited.generation = 2;
    bench.tell(News::Egg(Change::Set(edited))).await;
    bench.requests().await;
    let start = Instant::now();
    for number in 0..50 {
        let elsewhere = crate::index::Pod { node: "n2".to_owned(), ..named(&format!("b{number}")) };
        bench.tell(News::Pod(Change::Set(elsewhere))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let applied = |requests: Vec<String>| requests.iter().filter(|request| *request == APPLY).count();
    let (applies, more) = (applied(bench.requests().await), late(start, Duration::from_millis(800)) / 500);
    assert!(applies <= 1 + more, "{applies}: half a second and one second after two writes");
    let start = Instant::now();
    bench.tell(News::Pod(Change::Set(named("new")))).await;
    let (applies, more) = (applied(bench.requests().await), late(start, Duration::from_millis(250)) / 500);
    assert!((1..=1 + more).contains(&applies), "{applies}");
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_part_that_is_nearly_what_it_was_has_more_time() {
    let bench = start(true);
    bench.tell_all().await;
    for number in 0..100 {
        let elsewhere = crate::index::Pod { node: "n2".to_owned(), ..named(&format!("b{number}")) };
        bench.tell(News::Pod(Change::Set(elsewhere))).await;
    }
    let shaping = json!({"egress": {"rate": "50M", "scope": "Egg"}});
    let mut edited = egg(json!({"podSelector": {}, "shaping": shaping}));
    edited.generation = 2;
    bench.tell(News::Egg(Change::Set(edited))).await;
    bench.requests().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    // Each is one more of a hundred for the other node: the first may be told, and of the next ones one after a minute.
    for number in 0..4 {
        let here = crate::index::Pod { node: "n2".to_owned(), ..named(&format!("c{number}")) };
        bench.tell(News::Pod(Change::Set(here))).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    let requests = bench.requests().await;
    let told = requests.iter().filter(|request| *request == APPLY).count();
    assert!(told <= 1, "{requests:?}");
    // What was nearly the same may become far from it.
    for number in 0..100 {
        let elsewhere = crate::index::Pod { node: "n2".to_owned(), ..named(&format!("d{number}")) };
        bench.tell(News::Pod(Change::Set(elsewhere))).await;
    }
    let start = Instant::now();
    let mut told = false;
    while !told && start.elapsed() < Duration::from_secs(30) {
        told = bench.requests().await.iter().any(|request| request == APPLY);
    }
    assert!(told, "not within half a minute");
    bench.shutdown.cancel();
}

#[tokio::test]
async fn an_api_server_that_has_too_much_to_do_is_asked_less() {
    let bench = start(true);
    bench.tell_all().await;
    bench.code.store(429, Ordering::Relaxed);
    let before = bench.times.lock().unwrap().len();
    for number in 0..1_000 {
        let elsewhere = crate::index::Pod { node: format!("m{number}"), ..named(&format!("b{number}")) };
        bench.tell(News::Pod(Change::Set(elsewhere))).await;
    }
    let start = Instant::now();
    let refused = || bench.times.lock().unwrap()[before..].to_vec();
    while start.elapsed() < Duration::from_millis(1_800)
        || refused().len() < 5 && start.elapsed() < Duration::from_secs(30)
    {
        // Edits are no reason to ask more.
        bench.tell(News::Pod(Change::Set(named("b")))).await;
        bench.tell(News::Pod(Change::Gone(named("b").key()))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.requests().await;
    // As many as may be on their way, and then one after a second, less a quarter, and after ever longer pauses.
    let refused = refused();
    assert!(refused.len() >= 5, "{refused:?}");
    let gaps: Vec<_> = refused[3..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    let pauses = [750, 1_500, 3_000].map(Duration::from_millis);
    assert!(gaps.iter().zip(&pauses).all(|(gap, pause)| gap >= pause), "{gaps:?}");
    // It has time again: one goes ahead, and when it is taken the others follow.
    bench.code.store(200, Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(30);
    let mut written = 0;
    while written < 1_000 && Instant::now() < end {
        written += bench.requests().await.len();
    }
    assert!(written >= 1_000, "{written}");
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_request_that_is_never_answered_holds_nobody_up_after_a_refusal() {
    let bench = start(true);
    bench.tell_all().await;
    *bench.silent.lock().unwrap() = Some("web.m0");
    for number in 0..3 {
        bench.code.store(if number == 1 { 503 } else { 200 }, Ordering::Relaxed);
        let node = format!("m{number}");
        bench.tell(News::Pod(Change::Set(crate::index::Pod { node: node.clone(), ..named(&node) }))).await;
        let requests = bench.requests().await;
        let web = APPLY.replace("web.n1", &format!("web.{node}"));
        assert_eq!(requests.contains(&web), number < 2, "{requests:?}");
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let requests = bench.requests().await;
    for node in ["web.m1", "web.m2"] {
        assert!(requests.contains(&APPLY.replace("web.n1", node)), "{requests:?}");
    }
    bench.shutdown.cancel();
}

#[tokio::test]
async fn events_of_one_egg_have_a_pace() {
    let mut bench = start(true);
    bench.tell_all().await;
    for generation in 2..8 {
        let mut edited = egg(json!({"podSelector": {}}));
        edited.generation = generation;
        let message = format!("wrong in generation {generation}");
        edited.spec = Err(crate::index::Rejection { reason: "Invalid", message, selection: None });
        bench.tell(News::Egg(Change::Set(edited))).await;
        tokio::time::sleep(Duration::from_millis(if generation < 4 { 50 } else { 500 })).await;
    }
    bench.shutdown.cancel();
    let mut reasons = Vec::new();
    while let Some((event, _)) = bench.events.recv().await {
        reasons.push(event.reason);
    }
    assert_eq!(reasons, ["Accepted", "Rejected", "Rejected"]);
}

#[tokio::test]
async fn nothing_new_comes_into_a_namespace_that_ends() {
    let bench = start(true);
    bench.tell_all().await;
    bench.tell(News::Namespace(Change::Set(namespace(true)))).await;
    let late = crate::index::Pod { node: "n2".to_owned(), ..named("late") };
    bench.tell(News::Pod(Change::Set(late))).await;
    bench.tell(News::Pod(Change::Set(named("b")))).await;
    // What is there may change, and may be deleted.
    assert_eq!(bench.requests().await, [APPLY, STATUS]);
    // Another namespace of that name, of which its Eggs and pods were heard before.
    bench.tell(News::Namespace(Change::Gone("shop".to_owned()))).await;
    assert_eq!(bench.requests().await, [APPLY.replace("web.n1", "web.n2")]);
    bench.shutdown.cancel();
}
