//! Others change the filters of interfaces that have a backstop.

use super::*;
use crate::testing::warnings;

const OTHER: &str = "egress of interface veth1: filter x of priority 1";

fn told(agent: &mut Reconciler<FakeDatapath>, interface: u32, at: Instant) -> bool {
    agent.heed_filters(&BTreeSet::from([interface]), at)
}

fn wired() -> Reconciler<FakeDatapath> {
    let mut agent = settled();
    agent.datapath.interfaces = BTreeMap::from([(1, "p1".into()), (2, "p2".into())]);
    agent
}

#[test]
fn only_what_is_a_pods_and_damaged_asks_for_a_pass() {
    let (mut agent, now) = (wired(), Instant::now());
    assert!(!told(&mut agent, 7, now));
    assert_eq!(agent.datapath.looked_at, 0, "nobody's");
    for _ in 0..3 {
        assert!(!told(&mut agent, 1, now));
    }
    assert_eq!(agent.datapath.looked_at, 3);
    agent.datapath.overtaken.insert("p1".into(), OTHER.into());
    assert_eq!(agent.take(Input::Filters(BTreeSet::from([1]))), Taken::News);
    assert!(agent.wiring.is_unfinished(), "it is put back in the next pass");
}

#[test]
fn who_wants_to_be_first_as_well_is_answered_every_other_second_and_told_once() {
    let (mut agent, now) = (wired(), Instant::now());
    let overtake = |agent: &mut Reconciler<FakeDatapath>, uid: &str, interface, at| {
        agent.datapath.overtaken.insert(uid.into(), OTHER.into());
        told(agent, interface, at)
    };
    let lines = warnings(|| {
        assert!(overtake(&mut agent, "p1", 1, now));
        for millis in [1, 500, 1900] {
            assert!(!overtake(&mut agent, "p1", 1, now + Duration::from_millis(millis)));
        }
        agent.look_at_later(now + Duration::from_millis(1950));
        assert!(agent.datapath.overtaken.is_empty(), "it is not forgotten");
        assert!(!overtake(&mut agent, "p1", 1, now + Duration::from_millis(3900)));
        agent.look_at_later(now + Duration::from_millis(3960));
        assert!(overtake(&mut agent, "p1", 1, now + Duration::from_millis(6000)));
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("veth1"), "{lines:?}");
    assert_eq!(warnings(|| assert!(overtake(&mut agent, "p2", 2, now))).len(), 1, "another pod");
}
