//! Somebody takes away what is enforced.

use super::*;

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
