//! Lists after etcd was restored from a backup: versions go back.

use super::*;

#[test]
fn eggs_are_what_a_new_list_says() {
    let mut index = Index::default();
    let cluster =
        Egg { resource_version: 900, ..cluster_egg("all", Selector::default(), Selector::default()) };
    index.apply_egg(cluster.clone());
    index.apply_egg(Egg { resource_version: 900, ..egg("shop", "web", 3, app("web"), "10.0.0.0/8") });
    let restored = Egg { resource_version: 500, ..egg("shop", "web", 2, app("web"), "192.0.2.0/24") };
    index.apply_egg(restored.clone());
    assert_eq!(index.egg(&restored.key).unwrap().generation, 3, "late news of an older state");
    index.relist_eggs(EggKind::Egg);
    index.apply_egg(restored.clone());
    assert_eq!(index.egg(&restored.key).unwrap().generation, 2);
    assert_eq!(index.egg(&cluster.key).unwrap().resource_version, 900, "of ClusterEggs there was no list");
    // What is newer than the list still is.
    let status = EggStatus { observed_generation: Some(2), ..EggStatus::default() };
    index.status_written(&restored.key, &restored.uid, 501, status);
    index.apply_egg(restored.clone());
    assert_eq!(index.egg(&restored.key).unwrap().status.observed_generation, Some(2));
}

#[test]
fn assignments_are_what_a_new_list_says() {
    let mut index = Index::default();
    let web = egg("shop", "web", 1, Selector::default(), "10.0.0.0/8");
    index.apply_egg(web.clone());
    index.apply_pod(pod("shop", "a", "n1", &[]));
    let id = key(&web, "n1");
    let before = Observed { resource_version: 900, ..stored(&index, &id, 2) };
    index.apply_observed(before.clone());
    let mut restored = Observed { resource_version: 500, generation: 1, ..before };
    restored.assignment.as_mut().unwrap().pods.clear();
    index.relist_assignments();
    index.apply_observed(restored.clone());
    assert_eq!(index.observed(&id), Some(&restored));
    // The answer to a write is believed, though versions were higher once.
    index.apply_pod(pod("shop", "b", "n2", &[]));
    let other = key(&web, "n2");
    index.assignment_written(Observed { resource_version: 501, ..stored(&index, &other, 1) });
    assert!(index.observed(&other).is_some());
}
