use l7egg_crds::{AssignedHost, HostReport};

use super::*;

fn node(name: &str, pairs: &[(&str, &str)]) -> Node {
    let host = AssignedHost { pod_cidrs: vec![format!("10.88.{}.0/24", name.len())] };
    Node { name: name.to_owned(), labels: labels(pairs), host, boot_id: None }
}

fn firewall(generation: i64, nodes: Selector) -> Egg {
    let policy = Arc::new(policy("10.0.0.0/8"));
    Egg {
        generation,
        spec: Ok(Accepted { selection: Selection::Nodes(nodes), policy }),
        ..cluster_egg("edge", Selector::default(), Selector::default())
    }
}

fn role(role: &str) -> Selector {
    Expression::Equal("role".into(), role.into()).into()
}

/// What the agent of n1 says.
fn reported(index: &Index, id: &ObjectKey, state: PodState) -> Observed {
    let mut observed = stored(index, id, 1);
    let host =
        HostReport { state, reason: String::new(), message: String::new(), guard: vec!["API server".into()] };
    let status = EggAssignmentStatus::default();
    observed.status = EggAssignmentStatus { observed_generation: Some(1), host: Some(host), ..status };
    observed
}

#[test]
fn nodes_are_selected_by_their_labels_and_pods_are_not() {
    let mut index = Index::default();
    let egg = firewall(1, role("edge"));
    index.apply_node(node("n1", &[("role", "edge")]));
    index.apply_egg(egg.clone());
    index.apply_node(node("n22", &[("role", "inner")]));
    index.apply_pod(pod("shop", "a", "n1", &[("role", "edge")]));
    let id = key(&egg, "n1");
    let assignment = index.desired(&id).unwrap();
    assert_eq!(assignment.host.unwrap().pod_cidrs, ["10.88.2.0/24"]);
    assert!(assignment.pods.is_empty());
    assert_eq!(index.desired(&key(&egg, "n22")), None);
    index.take_changes();

    index.apply_node(node("n22", &[("role", "edge")]));
    assert_eq!(dirty(&mut index), only(&["l7egg-system/cluster.edge.n22"]));
    index.apply_node(node("n22", &[("role", "edge")]));
    assert_eq!(dirty(&mut index), none());
    index.remove_node("n22");
    assert_eq!(dirty(&mut index), only(&["l7egg-system/cluster.edge.n22"]));
    assert_eq!(index.desired(&key(&egg, "n22")), None);
    assert!(index.desired(&id).is_some());
}

#[test]
fn an_edit_from_nodes_to_pods_lets_the_nodes_go() {
    let mut index = Index::default();
    index.apply_node(node("n1", &[]));
    index.apply_pod(pod("shop", "a", "n2", &[]));
    let egg = firewall(1, Selector::default());
    index.apply_egg(egg.clone());
    assert!(index.desired(&key(&egg, "n1")).is_some());
    let pods = Egg { generation: 2, ..cluster_egg("edge", Selector::default(), Selector::default()) };
    index.apply_egg(pods);
    assert_eq!(index.desired(&key(&egg, "n1")), None);
    assert_eq!(pods_of(&index, &key(&egg, "n2")), ["a"]);
    assert!(!index.summary(&egg.key).unwrap().is_for_nodes);
}

#[test]
fn nodes_are_counted_with_what_they_guard() {
    let mut index = Index::default();
    index.apply_node(node("n1", &[]));
    index.apply_node(node("n22", &[]));
    let egg = firewall(1, Selector::default());
    index.apply_egg(egg.clone());
    let id = key(&egg, "n1");
    index.apply_observed(reported(&index, &id, PodState::Enforced));
    let summary = index.summary(&egg.key).unwrap();
    assert!(summary.is_for_nodes);
    assert_eq!((summary.tally.selected, summary.tally.enforced), (2, 1));
    assert_eq!(summary.tally.guard.iter().collect::<Vec<_>>(), ["API server"]);
    assert_eq!(summary.tally.pending[0].subject, "node n22");
    index.apply_observed(reported(&index, &id, PodState::Failed));
    assert_eq!(index.summary(&egg.key).unwrap().tally.failures[0].subject, "node n1");
}

#[test]
fn a_restarted_operator_keeps_the_nodes_of_an_egg_that_is_not_accepted() {
    let mut before = Index::default();
    before.apply_node(node("n1", &[]));
    let egg = firewall(1, Selector::default());
    before.apply_egg(egg.clone());
    let id = key(&egg, "n1");
    let mut index = Index::default();
    index.apply_observed(stored(&before, &id, 1));
    index.apply_node(node("n1", &[]));
    let unreadable = Egg {
        generation: 2,
        spec: Err(Rejection { reason: "Malformed", message: "wrong".into(), selection: None }),
        ..egg
    };
    index.apply_egg(unreadable);
    index.settle();
    assert_eq!(index.desired(&id), before.desired(&id));
}
