//! The smallest programs of type `sched_cls`: they say the same of every packet.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use l7egg_node_agent::kernel::sys;

/// `TC_ACT_UNSPEC`: the next one may judge.
const NEXT: i32 = -1;
/// `TC_ACT_OK`: it passes, and no other one is asked.
const LAST: i32 = 0;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// A loaded program.
pub struct VerdictProgram(OwnedFd);

impl VerdictProgram {
    /// Lets everything pass.
    pub fn pass() -> Self {
        Self::load(NEXT)
    }

    /// Lets everything pass, whatever those behind it say.
    pub fn overrule() -> Self {
        Self::load(LAST)
    }

    /// Drops everything.
    pub fn drop() -> Self {
        Self::load(DROP)
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn load(verdict: i32) -> Self {
        Self(sys::load_verdict(verdict).expect("loading a program"))
    }
}
