//! What is kept, and what is said of it later.

use std::time::{Duration, Instant};

use l7egg_crds::PolicySpec;
use l7egg_ebpf_common::abi::{Event, EventKind, protocol};
use l7egg_policy::DomainName;

use super::*;
use crate::explain::{ExplainedEgg, Whose};

fn all(log: &FlowLog) -> Vec<DeniedFlow> {
    log.since(0, None, &Explainers::new())
}

fn record(last: u8, at_ms: u64) -> Record {
    let event = Event {
        at_ns: at_ms * 1_000_000,
        remote: Address::mapped([192, 0, 2, last]),
        remote_port: 443,
        protocol: protocol::TCP,
        kind: EventKind::Denied as u32,
        ..Event::default()
    };
    Record::new(event, None, Vec::new).unwrap()
}

#[test]
fn the_same_again_is_one_flow() {
    let log = FlowLog::default();
    log.add(record(1, 10));
    log.add(record(2, 20));
    log.add(record(1, 30));
    let flows = all(&log);
    let summary: Vec<_> = flows.iter().map(|flow| (flow.destination.as_str(), flow.count)).collect();
    assert_eq!(summary, [("192.0.2.2", 1), ("192.0.2.1", 2)]);
    assert!(flows[1].first < flows[1].last);
    assert_eq!(log.since(flows[0].number, None, &Explainers::new()).len(), 1);
    assert!(log.since(flows[1].number, None, &Explainers::new()).is_empty());
}

#[test]
fn the_oldest_gives_way() {
    let log = FlowLog::default();
    for port in 0..=FLOWS_MAX as u16 {
        let mut one = record(1, u64::from(port));
        one.event.remote_port = port;
        log.add(one);
    }
    let flows = all(&log);
    assert_eq!(flows.len(), FLOWS_MAX);
    assert_eq!(flows[0].port, 1);
    assert_eq!(log.flows().by_key.len(), FLOWS_MAX);
}

/// Pod `shop/<uid>`, with an Egg of these rules.
fn pod(uid: &str, egress: serde_json::Value) -> Arc<Explainer> {
    let spec: PolicySpec = serde_json::from_value(serde_json::json!({"egress": egress})).unwrap();
    let egg = ExplainedEgg { revision: 1, name: "Egg shop/egg".into(), spec: Arc::new(spec) };
    Arc::new(Explainer {
        uid: uid.into(),
        pod: format!("shop/{uid}"),
        container: None,
        eggs: vec![egg],
        resolv_conf: Default::default(),
    })
}

fn record_of(whose: Option<Whose>, subject: u32, port: u16) -> Record {
    let mut record = record(1, 10);
    record.event.subject = subject;
    record.event.remote_port = port;
    Record { whose, ..record }
}

#[test]
fn flows_are_explained_by_what_eggs_say_now_and_keep_none_of_them() {
    let log = FlowLog::default();
    let before = pod("a", serde_json::json!([{"to": [{"cidr": "192.0.2.1/32"}], "ports": [{"port": 80}]}]));
    log.add(record_of(Some(before.whose()), 7, 443));
    let why = |now: &Arc<Explainer>| {
        let flow = log.since(0, None, &[(7, Arc::clone(now))].into()).remove(0);
        assert_eq!((flow.pod.as_str(), flow.uid.as_str()), ("shop/a", "a"));
        flow.why
    };
    assert!(why(&before).ends_with("spec.egress[0] allows the destination, on other ports"));
    let spec = Arc::downgrade(&before.eggs[0].spec);
    drop(before);
    assert!(spec.upgrade().is_none(), "nothing of the Egg is kept");
    assert!(why(&pod("a", serde_json::json!([{"to": [{"cidr": "192.0.2.0/24"}]}]))).contains("now allowed"));

    // A container that has begun anew is known by another number.
    let anew = [(8, pod("a", serde_json::json!([])))].into();
    assert_eq!(log.since(0, None, &anew)[0].why, "no rule allows it");
    // And a number may be another pod's.
    let gone = log.since(0, None, &[(7, pod("b", serde_json::json!([])))].into()).remove(0);
    assert_eq!((gone.pod.as_str(), gone.rule), ("shop/a", None));
    assert!(gone.why.starts_with("the pod is gone"), "{}", gone.why);
}

#[test]
fn a_pod_that_has_just_begun_gets_its_name_later() {
    let log = FlowLog::default();
    log.add(record_of(None, 7, 443));
    log.add(record_of(None, 8, 443));
    let nameless = all(&log);
    assert_eq!((nameless[0].pod.as_str(), nameless[1].pod.as_str()), ("", ""));
    assert!(nameless[0].why.contains("not known of which pod"), "{}", nameless[0].why);
    log.name(&[(7, pod("a", serde_json::json!([])))].into());
    let last = nameless[1].number;
    let named = log.since(last, None, &Explainers::new());
    assert_eq!((named.len(), named[0].pod.as_str()), (1, "shop/a"), "who follows is told");
    // It stays one flow.
    log.add(record_of(None, 7, 443));
    let again = log.since(named[0].number, None, &Explainers::new());
    assert_eq!((again[0].count, again[0].pod.as_str()), (2, "shop/a"));
    assert_eq!(log.flows().unnamed.len(), 1);
    assert_eq!(log.flows().by_key.len(), 2);
}

#[test]
fn one_pods_flows() {
    let log = FlowLog::default();
    let pods: Explainers =
        [(7, pod("a", serde_json::json!([]))), (8, pod("b", serde_json::json!([])))].into();
    log.add(record_of(Some(pods[&7].whose()), 7, 443));
    log.add(record_of(None, 8, 80));
    let ports = |pod| log.since(0, Some(pod), &pods).iter().map(|flow| flow.port).collect::<Vec<_>>();
    assert_eq!((ports("shop/a"), ports("shop/b"), ports("shop/c")), (vec![443], vec![80], vec![]));
}

/// Read anew for each flow, ten regular expressions took twelve seconds, and asking was given up after five.
#[test]
fn all_of_them_are_explained_soon_whatever_the_egg() {
    let log = FlowLog::default();
    let regexes: Vec<String> =
        (0..10).map(|n| format!("(a|b|c){{1,20}}[0-9]{{1,20}}-{n}\\.example\\.com")).collect();
    let cidrs = (0..2000).map(|n| serde_json::json!({"cidr": format!("10.{}.{}.0/24", n / 256, n % 256)}));
    let to: Vec<_> = std::iter::once(serde_json::json!({"domainRegex": regexes})).chain(cidrs).collect();
    let pods: Explainers = [(7, pod("a", serde_json::json!([{"to": to}])))].into();
    let name = DomainName::parse("www.example.org").unwrap();
    for port in 0..FLOWS_MAX as u16 {
        let names = vec![Learned { name: name.clone(), is_over: false }];
        log.add(Record { names, ..record_of(Some(pods[&7].whose()), 7, port) });
    }
    let start = Instant::now();
    assert_eq!(log.since(0, Some("shop/a"), &pods).len(), FLOWS_MAX);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
