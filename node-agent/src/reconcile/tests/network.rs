//! Pods whose networks are not found.

use super::*;
use crate::{reconcile::glance::NEW_FOR, testing::warnings};

fn told_pod(agent: &mut Reconciler<FakeDatapath>, pod: NodePod) {
    agent.take(Input::Selected(News::Pod(Event::Apply(pod))));
}

fn with_address() -> NodePod {
    NodePod {
        namespace: "shop".into(),
        name: "p1".into(),
        uid: "p1".into(),
        addresses: vec!["10.77.0.2".parse().unwrap()],
        ..NodePod::default()
    }
}

/// A pod that has been looked at in vain for so long.
fn looked_for(pod: NodePod, time: Duration) -> Reconciler<FakeDatapath> {
    let mut agent = agent(FakeDatapath::default());
    agent.datapath.unwired = usize::MAX;
    list(&mut agent, &[assignment("a").allow("10.0.0.0/8").pod("p1")]);
    told_pod(&mut agent, pod);
    cgroups(&mut agent, &["p1"]);
    pass(&mut agent);
    assert_eq!(status(&mut agent, "a"), [(PodState::Enforced, String::new())], "it may take its time");
    let since = agent.unfound.since.get_mut("p1").unwrap();
    *since -= time;
    agent
}

#[test]
fn a_network_that_is_not_found_for_long_is_told_once_and_is_in_the_report() {
    let mut agent = looked_for(with_address(), NEW_FOR);
    let told = warnings(|| {
        for _ in 0..2 {
            assert_eq!(status(&mut agent, "a"), [(PodState::Failed, "NetworkNotFound".to_owned())]);
        }
    });
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("shop/p1") || told[0].contains("p1"), "{told:?}");
    agent.datapath.unwired = 0;
    assert_eq!(status(&mut agent, "a"), [(PodState::Enforced, String::new())], "until it is found");
}

#[test]
fn a_pod_that_has_none_or_none_any_more_is_no_case_for_that() {
    let without = NodePod { addresses: Vec::new(), ..with_address() };
    let ended = NodePod { finished: true, ..with_address() };
    let ending = NodePod { is_ending: true, ..with_address() };
    for pod in [without, ended, ending] {
        let mut agent = looked_for(pod.clone(), NEW_FOR);
        assert_eq!(status(&mut agent, "a"), [(PodState::Enforced, String::new())], "{pod:?}");
    }
    let mut agent = looked_for(with_address(), NEW_FOR / 2);
    assert_eq!(status(&mut agent, "a"), [(PodState::Enforced, String::new())]);
}
