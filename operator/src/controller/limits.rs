//! How often the operator writes or tells one thing, whoever asks for it however often: who may write Eggs or pods of one namespace
//! decides neither how much the API server has to do nor how long others wait.

use std::time::Duration;

use crate::pace::Limits;

/// An EggAssignment, one of an Egg on one node. A pod that waits for it is held for 10 s by default, and it may be the
/// newest of many that start one after another.
pub(super) static ASSIGNMENT: Limits = Limits {
    free: 5,
    first: Duration::from_millis(100),
    longest: Duration::from_millis(250),
    quiet: Duration::from_secs(10),
};

/// The same where nothing but the node's part of a shared rate is another: no pod waits for that, and a pod of one node
/// changes it on all.
pub(super) static SHARES: Limits = Limits {
    free: 1,
    first: Duration::from_millis(500),
    longest: Duration::from_secs(10),
    quiet: Duration::from_secs(10),
};

/// The same where that part is nearly what it was: of an Egg with pods on thousands of nodes each pod that comes or goes changes all
/// of them by next to nothing.
pub(super) static NEAR_SHARES: Limits = Limits {
    free: 1,
    first: Duration::from_secs(60),
    longest: Duration::from_secs(300),
    quiet: Duration::from_secs(300),
};

/// The status of an Egg: accepted, pending and programmed are at once, and anew for each generation.
pub(super) static STATUS: Limits = Limits {
    free: 3,
    first: Duration::from_millis(100),
    longest: Duration::from_secs(10),
    quiet: Duration::from_secs(10),
};

/// The same for the first that is told of an Egg. Another of its name may have been told of all the time; of how often there was
/// that, it leaves no more than these limits need, so that what follows comes after a few seconds.
pub(super) static FIRST_STATUS: Limits = Limits { longest: Duration::from_secs(1), ..STATUS };

/// Events of one Egg for one reason. What is not told is lost; the status has it.
pub(super) static EVENT: Limits = Limits {
    free: 2,
    first: Duration::from_secs(10),
    longest: Duration::from_secs(300),
    quiet: Duration::from_secs(300),
};
