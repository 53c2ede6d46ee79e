//! The sizes that the operator is planned for: 5,000 nodes, 150,000 pods, 5,000 Eggs.

use std::time::{Duration, Instant};

use super::*;

const NODES: usize = 5_000;
const PODS: usize = 150_000;
const EGGS: usize = 5_000;
const NAMESPACES: usize = 500;

/// 300 pods and 10 Eggs in each namespace; each Egg selects 30 pods.
fn cluster() -> Index {
    let mut index = Index::default();
    for number in 0..EGGS {
        let namespace = format!("ns{}", number % NAMESPACES);
        let app = app(&format!("app{}", number / NAMESPACES));
        index.apply_egg(egg(&namespace, &format!("egg{number}"), 1, app, "10.0.0.0/8"));
    }
    for number in 0..PODS {
        index.apply_pod(numbered(number));
    }
    index
}

fn numbered(number: usize) -> Pod {
    let app = format!("app{}", number / NAMESPACES % 10);
    pod(
        &format!("ns{}", number % NAMESPACES),
        &format!("pod{number}"),
        &format!("node{}", number * 7 % NODES),
        &[("app", &app), ("pod-template-hash", "55f7d8c9b4")],
    )
}

#[test]
fn news_mark_no_more_than_they_touch() {
    let start = Instant::now();
    let mut index = cluster();
    let loaded = start.elapsed();
    assert_eq!(index.sizes().pods, PODS);
    assert_eq!(index.take_changes().status.len(), EGGS);

    let start = Instant::now();
    for number in 0..1_000 {
        index.remove_pod(&numbered(number).key());
        assert_eq!(index.take_changes().desired.len(), 1);
        index.apply_pod(numbered(number));
        assert_eq!(index.take_changes().desired.len(), 1);
    }
    let pod_news = start.elapsed() / 2_000;

    let start = Instant::now();
    index.apply_egg(egg("ns0", "egg0", 2, app("app0"), "192.0.2.0/24"));
    let changes = index.take_changes();
    let edit = start.elapsed();
    assert!(
        changes.desired.len() <= 30,
        "an edit marks the nodes of its pods, not {}",
        changes.desired.len()
    );

    println!("load {loaded:?}, a pod's news {pod_news:?}, an Egg's edit {edit:?}");
    // Far above what any machine needs, far below what work on the whole cluster would take.
    assert!(pod_news < Duration::from_millis(1), "{pod_news:?}");
    assert!(edit < Duration::from_millis(50), "{edit:?}");
    reports_cost_their_node(index);
}

/// A ClusterEgg over everything: a report costs its node's pods, and a sum over the nodes.
fn reports_cost_their_node(mut index: Index) {
    let all = cluster_egg("all", Selector::default(), Selector::default());
    index.apply_egg(all.clone());
    assert_eq!(index.summary(&all.key).unwrap().tally.selected, PODS);
    index.take_changes();
    let start = Instant::now();
    for number in 0..100 {
        let id = key(&all, &numbered(number).node);
        index.apply_observed(reported(&index, &id, 1, PodState::Enforced));
        index.summary(&all.key).unwrap();
    }
    let report = start.elapsed() / 100;
    println!("an agent's report with the ClusterEgg's tally {report:?}");
    assert!(report < Duration::from_millis(20), "{report:?}");
}

/// A rate that all pods share, by namespace or altogether: 30 pods of each namespace of each node.
#[test]
fn a_shared_rate_costs_the_nodes_that_share_it() {
    let mut index = Index::default();
    for number in 0..PODS {
        index.apply_pod(numbered(number));
    }
    for scope in ["Namespace", "Egg"] {
        let all = shaped(cluster_egg("all", Selector::default(), Selector::default()), scope);
        let start = Instant::now();
        index.apply_egg(Egg { generation: if scope == "Egg" { 2 } else { 1 }, ..all.clone() });
        assert_eq!(index.take_changes().desired.len(), NODES);
        let begun = start.elapsed();
        let start = Instant::now();
        assert_eq!(index.summary(&all.key).unwrap().tally.selected, PODS);
        let counted = start.elapsed();

        let start = Instant::now();
        let gone = numbered(0);
        index.remove_pod(&gone.key());
        let changes = index.take_changes();
        assert_eq!(changes.desired.len(), 1);
        let sharing = if scope == "Egg" { NODES } else { nodes_of(&gone.assigned.namespace) };
        assert_eq!(changes.shares.len(), sharing);
        for key in changes.shares.keys() {
            assert!(!index.desired(key).unwrap().shares.is_empty());
        }
        let news = start.elapsed();
        index.apply_pod(gone);

        println!("{scope}: first look {begun:?}, tally {counted:?}, a pod's news with all it marks {news:?}");
        assert!(begun < Duration::from_secs(20), "{begun:?}");
        assert!(counted < Duration::from_secs(20), "{counted:?}");
        // As before with all pods counted anew for each node: minutes.
        assert!(news < Duration::from_secs(20), "{news:?}");
    }
}

/// Nodes that have pods of this namespace besides the first one.
fn nodes_of(namespace: &str) -> usize {
    let pods = (1..PODS).map(numbered).filter(|pod| pod.assigned.namespace == namespace);
    pods.map(|pod| pod.node).collect::<BTreeSet<_>>().len()
}
