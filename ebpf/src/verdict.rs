//! What the programs find about a packet, and why they drop it.

use l7egg_ebpf_common::abi::Counter;

/// What is known of the connection or flow of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    /// The policy in force has allowed it, or the other side opened it.
    Judged,
    /// An earlier policy allowed it, by a name, or by none.
    Earlier,
    /// Nothing.
    New,
}

impl Recalled {
    /// From what a global function or a lookup returns.
    #[inline(always)]
    pub fn from_number(number: i32) -> Self {
        match number {
            JUDGED => Self::Judged,
            EARLIER => Self::Earlier,
            _ => Self::New,
        }
    }
}

pub const NEW: i32 = 0;
pub const JUDGED: i32 = 1;
pub const EARLIER: i32 = 2;

/// Why a packet is dropped or a connect refused.
#[derive(Clone, Copy)]
pub enum Refusal {
    /// It could not be read.
    Malformed,
    /// No rule allows it, or one denies it. It has been counted and reported.
    Denied,
    /// The pod's policy is not here yet.
    Unconfigured,
    /// No memory to work in; the sender will try again.
    ScratchBusy,
    /// A query for a name that no Allow rule matches, where the policy refuses those.
    Query,
    /// One that cannot be read, there.
    Unreadable,
    /// An answer to a matched query that cannot be read.
    Answer,
    /// In somebody else's name.
    Spoofed,
    /// The pod has as much as it may have of what this takes.
    Full,
}

impl Refusal {
    /// The counter for it.
    #[inline(always)]
    pub fn counter(self) -> Counter {
        match self {
            Self::Malformed => Counter::Malformed,
            Self::Denied => Counter::Denied,
            Self::Unconfigured => Counter::Unconfigured,
            Self::ScratchBusy => Counter::ScratchBusy,
            Self::Query | Self::Unreadable => Counter::QueriesRefused,
            Self::Answer => Counter::AnswersDropped,
            Self::Spoofed => Counter::Spoofed,
            Self::Full => Counter::ShareReached,
        }
    }
}
