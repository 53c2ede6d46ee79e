//! What is done between passes, and what one pass leaves to the next.

use super::*;

#[test]
fn a_new_pods_network_is_looked_for_between_passes_until_it_is_found() {
    let mut agent = agent(FakeDatapath::default());
    agent.datapath.unwired = 5;
    list(&mut agent, &[assignment("a").allow("10.0.0.0/8").pod("p1")]);
    cgroups(&mut agent, &["p1"]);
    assert_eq!(pass(&mut agent), ["enforce p1"]);
    let mut looks = 0;
    while agent.datapath.unwired > 0 {
        assert!(agent.glance_in() <= Duration::from_millis(10));
        assert!(!agent.glance(), "nothing that a pass has to do");
        looks += 1;
    }
    assert!((1..5).contains(&looks), "{looks}");
    agent.glance();
    assert_eq!(agent.glance_in(), Duration::MAX);
}

#[test]
fn the_network_of_a_sandbox_made_anew_is_looked_for_between_passes() {
    let mut agent = settled();
    assert_eq!(agent.glance_in(), Duration::MAX);
    agent.datapath.without_network = ["p1".to_owned()].into();
    // The old cgroup's end.
    agent.take(Input::Cgroup(CgroupEvent::Changed));
    assert!(pass(&mut agent).is_empty());
    assert!(agent.glance_in() <= Duration::from_millis(10));
    agent.glance();
    assert!(agent.glance_in() <= Duration::from_millis(10), "there is none yet");
    agent.datapath.without_network.clear();
    agent.glance();
    assert_eq!(agent.glance_in(), Duration::MAX);
}

#[test]
fn a_node_full_of_pods_is_let_go_of_in_several_passes() {
    let uids: Vec<String> = (0..40).map(|number| format!("p{number:02}")).collect();
    let mut agent = agent(FakeDatapath::default());
    let all = uids.iter().fold(assignment("a").allow("10.0.0.0/8"), |all, uid| all.pod(uid));
    list(&mut agent, &[all]);
    cgroups(&mut agent, &uids.iter().map(String::as_str).collect::<Vec<_>>());
    while agent.datapath.pods.len() < uids.len() {
        pass(&mut agent);
    }
    agent.take(Input::Assignments(Box::new(Event::Delete(assignment("a").object()))));
    apply(&mut agent, &assignment("b").allow("10.0.0.0/8").pod("p00"));
    let released: Vec<usize> =
        (0..3).map(|_| pass(&mut agent).iter().filter(|call| call.starts_with("release")).count()).collect();
    assert_eq!(released, [16, 16, 7]);
    assert!(!agent.is_unfinished);
    assert_eq!(agent.datapath.pods.keys().collect::<Vec<_>>(), ["p00"]);
}

#[test]
fn nobody_waits_for_a_policy_that_fails_slowly() {
    let mut agent = settled();
    agent.datapath.refuse = ["p0".to_owned()].into();
    agent.datapath.refusing_takes = Duration::from_millis(120);
    cgroups(&mut agent, &["p0", "p1", "p2"]);
    let edited = |network| assignment("a").allow(network).pod("p0").pod("p1").pod("p2");
    apply(&mut agent, &edited("10.0.0.0/9"));
    // Nobody knows yet that it fails.
    assert_eq!(pass(&mut agent), ["hold p0", "enforce p1"]);
    assert!(agent.is_unfinished);
    assert_eq!(pass(&mut agent), ["enforce p2"]);
    assert!(agent.failures.contains_key("p0") && !agent.is_unfinished);
    // It is tried again in a while; another policy at once, and behind the others.
    assert_eq!(pass(&mut agent).len(), 0);
    assert_eq!(agent.datapath.refusals, 1);
    apply(&mut agent, &edited("10.0.0.0/10"));
    assert_eq!(pass(&mut agent), ["enforce p1", "enforce p2"]);
    assert_eq!(agent.datapath.refusals, 2);
    assert!(!agent.is_unfinished, "the loop rests");
}
