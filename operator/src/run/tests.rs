use std::future::pending;

use super::*;

/// A part of the operator that is to go on for ever, and one that does what is given.
fn services(part: impl Future<Output = ()> + Send + 'static) -> Services {
    let mut services = Services::default();
    services.spawn("watch of eggs", pending());
    services.spawn("watch of pods", part);
    services
}

#[tokio::test]
async fn a_part_that_ends_or_panics_ends_the_operator() {
    for (panics, words) in [
        (false, "watch of pods ended, which is a fault of the operator: please report it"),
        (
            true,
            "watch of pods ended, which is a fault of the operator: please report it (panic: no such pod)",
        ),
    ] {
        let stop = CancellationToken::new();
        let mut services = services(async move { assert!(!panics, "no such pod") });
        let result = watch_over(&mut services, &mut Services::default(), &stop).await;
        assert_eq!(result.unwrap_err().to_string(), words);
        assert!(stop.is_cancelled(), "the control loop is to stop writing before the lease is given back");
    }
}

#[tokio::test]
async fn so_does_the_leader_election() {
    let stop = CancellationToken::new();
    let mut lease = Services::default();
    lease.spawn("leader election", async {});
    let result = watch_over(&mut services(pending()), &mut lease, &stop).await;
    assert!(matches!(result, Err(RunError::Ended { what: "leader election", panic: None })), "{result:?}");
}

#[tokio::test]
async fn one_that_is_to_stop_finds_no_fault_in_its_parts() {
    let stop = CancellationToken::new();
    stop.cancel();
    let result = watch_over(&mut services(async {}), &mut Services::default(), &stop).await;
    assert!(result.is_ok(), "{result:?}");
}
