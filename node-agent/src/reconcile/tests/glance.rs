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
