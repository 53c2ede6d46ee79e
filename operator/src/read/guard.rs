//! A panic over one object stays with that object: whoever wrote it decides what is in it, and the others' are read by the same task.

use l7egg_daemon::panics::{caught, message};

use crate::index::{EggKey, Rejection};
use crate::judging::Judgement;

/// What `read` makes of an object.
///
/// # Errors
/// What it said when it panicked.
pub fn guarded<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    // What it is given is only read, so nothing is left half done.
    caught(read).map_err(|panic| message(&*panic).to_owned())
}

/// What `judge` says of an Egg. That it panicked is a reason not to accept the Egg.
pub fn judged_safely(key: &EggKey, judge: impl FnOnce() -> Judgement) -> Judgement {
    guarded(judge).unwrap_or_else(|panic| {
        tracing::error!(egg = %key, panic, "cannot be judged, which is a fault of the operator: please report it");
        let message = format!(
            "the operator failed over this Egg, which is a fault of the operator: please report it, with the Egg ({panic})"
        );
        Err(Rejection { reason: "Malformed", message, selection: None })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_over_an_egg_is_a_reason_not_to_accept_it() {
        let key = EggKey::egg("shop", "web");
        let rejection = judged_safely(&key, || panic!("index {} out of bounds", 7)).unwrap_err();
        assert_eq!(rejection.reason, "Malformed");
        assert!(rejection.message.contains("fault of the operator"), "{}", rejection.message);
        assert!(rejection.message.contains("index 7 out of bounds"), "{}", rejection.message);
    }
}
