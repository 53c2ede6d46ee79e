//! Queries, names, and the addresses that pods learn.

use super::{Address, LEARNED_NAMES, Masks, PatternKey};

/// Key of `LEARNED`: an address that a pod was given for a name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LearnedKey {
    /// Who asked.
    pub subject: u32,
    /// The address.
    pub address: Address,
}

/// One name of a learned address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LearnedName {
    /// Hash of the name, 0 where the slot is free.
    pub name: u64,
    /// Until when it is believed, in ns of `bpf_ktime_get_boot_ns`; [`crate::learned::CLAIMED`] while the slot is being written.
    pub expires_ns: u64,
}

/// Value of `LEARNED`: the names by which the pod learned the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The names, in no order; behind them the free slots.
    pub names: [LearnedName; LEARNED_NAMES],
}

/// Value of `NAMES`, by the hash of the name: the name itself, so that a later policy can judge it. Few names are longer than
/// what it holds: a new one costs the memory that it touches first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// When it was last asked for, in ns of `CLOCK_MONOTONIC`, to the tick (`bpf_ktime_get_coarse_ns`): without the time asleep.
    pub asked_ns: u64,
    /// What the policy below says about it. Other policies' words are in `NAME_VERDICTS`.
    pub masks: Masks,
    /// The policy in force for the pod that asked first.
    pub policy: u32,
    /// Length of the name in wire form, at most [`super::NAME_MAX`].
    pub len: u16,
    /// The pod that asked first: its share of `NAMES` counts it. Subject ids are below [`super::SUBJECTS_MAX`].
    pub subject: u16,
    /// Wire form, lower case, without the root label: its beginning, and zero behind it.
    pub wire: [u8; NAME_HEAD],
}

/// Key of `SHARES`, which is no pod's: what all have together.
pub const SHARES_OF_ALL: u32 = 0;

/// Map `SHARES`, by subject id: how many entries it has of tables that all share; under [`SHARES_OF_ALL`] those of all. The programs count
/// up, and the agent counts anew now and then.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Of `LEARNED`.
    pub learned: u64,
    /// Of `NAMES`: the names that it was the first to ask for.
    pub names: u64,
    /// How often it could have no more, since the agent last counted.
    pub turned_away: u64,
}

/// How many connections to name servers are read of one pod at a time; of more the handshake waits.
pub const CONVERSATIONS_MAX: u64 = 1_024;

/// Bytes of a name in [`Name`].
pub const NAME_HEAD: usize = 64;

/// Value of `NAME_TAILS`, by the hash of the name: what comes behind the first [`NAME_HEAD`] bytes of it, where it has more.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameTail {
    /// As in [`Name`].
    pub wire: [u8; 256 - NAME_HEAD],
}

/// Key of `NAME_VERDICTS`, a cache: what a policy says about a whole name, other than the one in [`Name`]. The
/// value is [`super::Masks`].
pub type NameVerdictKey = PatternKey;
