//! Looks at connections that fail.

use std::time::Duration;

use super::*;
use crate::reconcile::settle::Later;

#[test]
fn a_look_that_has_failed_is_tried_again_after_a_while() {
    let mut agent = settled();
    agent.datapath.unlookable = 1;
    assert_eq!(settle(&mut agent), [("p2".to_owned(), true)], "the others do not wait for it");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(settle(&mut agent), [("p1".to_owned(), true)]);
    assert_eq!(settle(&mut agent), []);
}

#[test]
fn pauses_double_up_to_a_minute() {
    let now = Instant::now();
    let mut later = Later::after(None, now);
    let mut pauses = vec![later.at - now];
    for _ in 0..7 {
        later = Later::after(Some(&later), now);
        pauses.push(later.at - now);
    }
    assert_eq!(pauses.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 60, 60]);
}
