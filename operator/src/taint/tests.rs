use std::cell::RefCell;

use futures::stream;
use kube::core::Status;
use l7egg_daemon::testing::warnings;
use tokio::sync::mpsc;

use super::*;

/// An agent's pod.
pub(super) fn pod(name: &str, node: &str, ready: bool) -> Pod {
    let status = json!({"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]});
    let object =
        json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": []}, "status": status});
    serde_json::from_value(object).unwrap()
}

fn taint(key: &str, effect: &str) -> Taint {
    Taint { key: key.into(), effect: effect.into(), ..Taint::default() }
}

fn refusal(code: u16) -> kube::Error {
    kube::Error::Api(Status { code, message: "no".to_owned(), ..Status::default() }.boxed())
}

/// A list of one agent for each of these nodes, and nothing more.
fn list(nodes: &[&str], ready: bool) -> impl Stream<Item = Event<Pod>> {
    let agents = nodes.iter().map(|node| Event::InitApply(pod(node, node, ready)));
    let events: Vec<_> = [Event::Init].into_iter().chain(agents).chain([Event::InitDone]).collect();
    stream::iter(events).chain(stream::pending())
}

fn news(mut events: mpsc::UnboundedReceiver<Event<Pod>>) -> impl Stream<Item = Event<Pod>> {
    stream::poll_fn(move |context| events.poll_recv(context))
}

/// For as long as `seconds`.
async fn kept<F: Future<Output = kube::Result<()>>>(
    seconds: u64,
    events: impl Stream<Item = Event<Pod>>,
    leads: &watch::Sender<Term>,
    write: impl Fn(String, Option<bool>) -> F,
) {
    let kept = keep(events, Leading(leads.subscribe()), write);
    assert!(timeout(Duration::from_secs(seconds), kept).await.is_err(), "it does not end");
}

/// The warnings of this, by a clock that stands still while there is something to do.
fn warnings_of(work: impl Future<Output = ()>) -> Vec<String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    warnings(|| runtime.block_on(work))
}

#[test]
fn who_lacks_the_right_is_told_once_what_to_do_and_asks_ever_more_seldom() {
    let leads = watch::Sender::new(Term::Endless);
    let asked = RefCell::new(Vec::new());
    let told = warnings_of(kept(600, list(&["a", "b", "c"], false), &leads, async |node, _| {
        asked.borrow_mut().push(node);
        Err(refusal(403))
    }));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("apply manifests/agent-taint.yaml"), "{told:?}");
    // After 0, 2, 6, 14, 30 and 62 seconds, and then each minute.
    assert_eq!(asked.borrow().len(), 6 + 8);
    for node in ["a", "b", "c"] {
        assert!(asked.borrow().iter().any(|asked| asked == node), "{node} has its turn");
    }
}

#[test]
fn a_node_that_cannot_be_written_is_told_once_and_keeps_nobody_waiting() {
    let leads = watch::Sender::new(Term::Endless);
    let asked = RefCell::new(Vec::new());
    let told = warnings_of(kept(200, list(&["a", "b", "c"], false), &leads, async |node, _| {
        asked.borrow_mut().push(node.clone());
        if node == "a" { Err(refusal(422)) } else { Ok(()) }
    }));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("\"a\""), "{told:?}");
    assert_eq!(asked.borrow()[..4], ["a", "b", "c", "a"]);
    assert_eq!(asked.borrow().iter().filter(|node| *node == "a").count(), 6 + 2);
}

#[tokio::test(start_paused = true)]
async fn who_has_lost_the_lease_writes_no_further_node() {
    let leads = watch::Sender::new(Term::Endless);
    let asked = RefCell::new(Vec::new());
    for takes in [Duration::ZERO, Duration::from_secs(5)] {
        leads.send_replace(Term::Endless);
        asked.borrow_mut().clear();
        kept(60, list(&["a", "b", "c"], false), &leads, async |node, _| {
            asked.borrow_mut().push(node);
            leads.send_replace(Term::None);
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
                panic!("nor is the one waited for that it writes");
            }
            Ok(())
        })
        .await;
        assert_eq!(*asked.borrow(), ["a"]);
    }
    // And who gets it again looks at all of them.
    let again = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        leads.send(Term::Endless).unwrap();
    };
    asked.borrow_mut().clear();
    let kept = kept(60, list(&["a", "b", "c"], false), &leads, async |node, _| {
        asked.borrow_mut().push(node);
        Ok(())
    });
    tokio::join!(kept, again);
    assert_eq!(*asked.borrow(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_written_by_what_is_known_then() {
    let leads = watch::Sender::new(Term::Endless);
    let (sender, events) = mpsc::unbounded_channel();
    for node in ["a", "b"] {
        sender.send(Event::Apply(pod(node, node, false))).unwrap();
    }
    let written = RefCell::new(Vec::new());
    kept(60, news(events), &leads, async |node, ready| {
        if node == "a" {
            sender.send(Event::Apply(pod("b", "b", true))).unwrap();
        }
        written.borrow_mut().push((node, ready));
        Ok(())
    })
    .await;
    assert_eq!(*written.borrow(), [("a".to_owned(), Some(false)), ("b".to_owned(), Some(true))]);
}

#[tokio::test(start_paused = true)]
async fn nodes_are_looked_at_again_now_and_then() {
    let leads = watch::Sender::new(Term::Endless);
    let asked = RefCell::new(Vec::new());
    kept(601, list(&["a", "b"], true), &leads, async |node, _| {
        asked.borrow_mut().push(node);
        Ok(())
    })
    .await;
    assert_eq!(*asked.borrow(), ["a", "b", "a", "b", "a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_waited_for_once() {
    let leads = watch::Sender::new(Term::Endless);
    let asked = RefCell::new(Vec::new());
    let start = Instant::now();
    kept(11, list(&["a", "b", "c", "d"], true), &leads, async |node, _| {
        asked.borrow_mut().push((node.clone(), start.elapsed().as_secs()));
        match node.as_str() {
            "a" => Ok(()),
            "b" => Err(refusal(409)),
            _ => std::future::pending().await,
        }
    })
    .await;
    let expected = [("a", 0), ("b", 0), ("c", 0)].map(|(node, at)| (node.to_owned(), at));
    assert_eq!(*asked.borrow(), expected);
}

#[test]
fn others_taints_stay() {
    let other = taint("node.kubernetes.io/not-ready", "NoSchedule");
    let ours = taint(TAINT, NO_SCHEDULE);
    assert_eq!(taints(&[], true), None);
    assert_eq!(taints(std::slice::from_ref(&other), true), None);
    assert_eq!(taints(&[ours.clone(), other.clone()], false), None);
    assert_eq!(taints(std::slice::from_ref(&other), false), Some(vec![other.clone(), ours.clone()]));
    assert_eq!(taints(&[ours.clone(), other.clone()], true), Some(vec![other.clone()]));
    // As a kubelet may register it, with another effect.
    let foreign = taint(TAINT, "NoExecute");
    assert_eq!(taints(std::slice::from_ref(&foreign), true), Some(vec![]));
    assert_eq!(taints(&[foreign], false), Some(vec![ours]));
}
