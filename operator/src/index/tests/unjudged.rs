use super::*;

/// An operator that finds the assignments of `web` on n1 and n2, and not yet what `web` says.
fn restarted() -> (Index, Egg) {
    let web = egg("shop", "web", 1, app("web"), "10.0.0.0/8");
    let mut before = Index::default();
    before.apply_egg(web.clone());
    let pods = ["n1", "n2"].map(|node| pod("shop", node, node, &[("app", "web")]));
    pods.iter().for_each(|pod| before.apply_pod(pod.clone()));
    let mut index = Index::default();
    index.apply_pod(pods[0].clone());
    for node in ["n1", "n2"] {
        let mut observed = stored(&before, &key(&web, node), 1);
        observed.assignment.as_mut().unwrap().policy = Arc::new(policy("10.0.0.0/8"));
        index.apply_observed(observed);
    }
    index.await_egg(&web.key);
    index.settle();
    index.take_changes();
    (index, web)
}

#[test]
fn what_exists_stays_until_its_egg_is_judged() {
    let (mut index, web) = restarted();
    for node in ["n1", "n2"] {
        assert!(index.may_be_wanted(&key(&web, node)));
    }
    assert!(!index.may_be_wanted(&ObjectKey::new("other", "web.n1")), "other namespaces do not wait");
    assert_eq!(index.summary(&web.key), None, "there is nothing to say of it");
    index.apply_egg(web.clone());
    assert!(!index.may_be_wanted(&key(&web, "n1")));
    // What it does not ask for is looked at now.
    assert_eq!(dirty(&mut index), only(&["shop/web.n1", "shop/web.n2"]));
    assert_eq!(index.desired(&key(&web, "n2")), None);
    let (desired, observed) = (index.desired(&key(&web, "n1")), index.observed(&key(&web, "n1")));
    assert_eq!(desired, observed.unwrap().assignment);
    assert!(Arc::ptr_eq(&desired.unwrap().policy, &observed.unwrap().assignment.as_ref().unwrap().policy));
}

#[test]
fn an_egg_that_is_not_accepted_then_goes_on_with_what_it_had() {
    let (mut index, web) = restarted();
    index.apply_egg(rejected(web.clone(), 2));
    assert_eq!(index.desired(&key(&web, "n1")).unwrap().egg.generation, 1);
}

#[test]
fn a_namespace_waits_for_the_last_of_its_eggs_and_for_none_that_is_gone() {
    let (mut index, web) = restarted();
    let slow = EggKey::egg("shop", "slow");
    index.await_egg(&slow);
    index.apply_egg(web.clone());
    assert!(index.may_be_wanted(&key(&web, "n2")));
    index.take_changes();
    assert!(index.egg_keys().any(|key| key == slow), "a list without it is news of its end");
    index.remove_egg(&slow);
    assert!(!index.may_be_wanted(&key(&web, "n2")));
    assert_eq!(dirty(&mut index), only(&["shop/web.n1", "shop/web.n2"]));
    assert_eq!(index.unjudged(), 0);
}

#[test]
fn one_that_is_judged_again_goes_on_as_it_was() {
    let (mut index, web) = restarted();
    index.apply_egg(web.clone());
    index.take_changes();
    index.await_egg(&web.key);
    assert!(!index.may_be_wanted(&key(&web, "n1")));
    assert_eq!(index.take_changes(), Changes::default());
    assert_eq!(pods_of(&index, &key(&web, "n1")), ["n1"]);
}
