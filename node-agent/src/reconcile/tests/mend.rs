//! Somebody takes away what is enforced.

use super::*;
use crate::testing::warnings;

#[test]
fn connections_from_while_nothing_was_enforced_are_looked_at() {
    let mut agent = settled();
    agent.settle_one();
    agent.settle_one();
    assert!(!agent.has_unsettled());
    agent.mend();
    assert!(!agent.has_unsettled(), "nothing is gone");
    agent.datapath.lost.insert("p2".into());
    agent.mend();
    assert_eq!(agent.next_unsettled().map(String::as_str), Some("p2"));
    assert!(pass(&mut agent).is_empty(), "it has back what it had");
}

#[test]
fn what_cannot_be_put_back_is_told_once() {
    let mut agent = settled();
    agent.datapath.broken = true;
    agent.mend();
    assert!(agent.told_unmended.is_some());
    agent.datapath.broken = false;
    agent.mend();
    assert!(agent.told_unmended.is_none());
}

#[test]
fn what_another_version_left_and_cannot_be_removed_is_told_once_and_not_tried_with_each_pass() {
    let mut agent = settled();
    agent.datapath.refuse_retiring = true;
    agent.datapath.retirings = 0;
    let told = warnings(|| (0..5).for_each(|_| _ = pass(&mut agent)));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("what another version left could not be removed"), "{told:?}");
    assert_eq!(agent.datapath.retirings, 1);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(warnings(|| _ = pass(&mut agent)).is_empty(), "it is known");
    assert_eq!(agent.datapath.retirings, 2);
    std::thread::sleep(Duration::from_millis(1100));
    agent.datapath.refuse_retiring = false;
    pass(&mut agent);
    agent.datapath.refuse_retiring = true;
    assert_eq!(warnings(|| _ = pass(&mut agent)).len(), 1, "another time");
}
