//! What the watches tell, and what is written then.

use super::*;

#[tokio::test]
async fn nothing_is_written_before_all_lists_are_in() {
    let bench = start(true);
    // First the assignments: without its Egg, every one of them would look like a stray.
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Set(stray()))).await;
    assert_eq!(bench.requests().await, [""; 0]);
    bench.tell_all_but_assignments().await;
    assert_eq!(bench.requests().await, [""; 0]);
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [DELETE, APPLY, STATUS]);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn one_that_does_not_lead_knows_and_does_not_write() {
    let bench = start(false);
    bench.tell_all_but_assignments().await;
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [""; 0]);
    bench.leads.send(Term::Endless).unwrap();
    assert_eq!(bench.requests().await, [APPLY, STATUS]);
    bench.leads.send(Term::None).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.tell(News::Egg(Change::Gone(EggKey::egg("shop", "web")))).await;
    assert_eq!(bench.requests().await, [""; 0]);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_new_list_without_an_object_is_news_of_its_end() {
    let mut bench = start(true);
    bench.tell_all_but_assignments().await;
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [APPLY, STATUS]);
    assert_eq!(bench.events.recv().await.unwrap().0.reason, "Accepted");
    bench.tell(News::Pod(Change::Listing)).await;
    assert_eq!(bench.requests().await, [""; 0], "half a list says nothing");
    bench.tell(News::Pod(Change::Listed)).await;
    assert_eq!(
        bench.requests().await,
        ["DELETE /apis/l7egg.dev/v1alpha1/namespaces/shop/eggassignments/web.n1", STATUS]
    );
    bench.shutdown.cancel();
}

#[tokio::test]
async fn what_an_egg_has_stays_until_it_is_judged_and_the_others_do_not_wait() {
    let bench = start(true);
    bench.tell_all_but_assignments().await;
    bench.tell(News::Egg(Change::Present(EggKey::egg("shop", "stray")))).await;
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Set(stray()))).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [APPLY, STATUS]);
    bench.tell(News::Egg(Change::Gone(EggKey::egg("shop", "stray")))).await;
    assert_eq!(bench.requests().await, [DELETE]);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_list_is_believed_though_versions_went_back() {
    let bench = start(true);
    bench.tell_all_but_assignments().await;
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Set(Observed { resource_version: 900, ..assigned() }))).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [STATUS]);
    // etcd was restored from a backup of before the pod was assigned.
    let mut restored = Observed { resource_version: 500, ..assigned() };
    restored.assignment.as_mut().unwrap().pods.clear();
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Set(restored))).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    assert_eq!(bench.requests().await, [APPLY]);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn who_was_stopped_until_its_term_was_over_writes_nothing() {
    let bench = start(false);
    bench.tell_all_but_assignments().await;
    bench.tell(News::Assignment(Change::Listing)).await;
    bench.tell(News::Assignment(Change::Listed)).await;
    bench.leads.send(Term::Until(tokio::time::Instant::now())).unwrap();
    assert!(bench.requests().await.is_empty());
    bench.leads.send(Term::Until(tokio::time::Instant::now() + Duration::from_secs(60))).unwrap();
    assert!(!bench.requests().await.is_empty());
    bench.shutdown.cancel();
}
