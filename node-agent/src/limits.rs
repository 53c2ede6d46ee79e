//! Limits of the node that are reached: what is full, and what that means. What was enforced stays enforced; what is new
//! is turned away, counted, and told for as long as it goes on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

pub use l7egg_crds::REASON_LIMIT_REACHED as LIMIT_REACHED;
use l7egg_ebpf_common::abi::Counter;
use l7egg_policy::CompiledPolicy;
use serde::{Deserialize, Serialize};

use crate::datapath::Counters;

/// A limit counts as reached for so long after it last turned something away.
const LINGER: Duration = Duration::from_secs(60);

/// What can be full without any call of the agent's failing: a policy that does not fit is the failure of its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Limit {
    /// Maps `LEARNED` or `NAMES`.
    Learned,
    /// Map `INHERITED`.
    Inherited,
    /// The ring buffer `EVENTS`.
    Events,
    /// What one pod may have of maps `LEARNED` and `NAMES`.
    Share,
    /// The programs' working memory.
    Scratch,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 5] =
        [Limit::Learned, Limit::Inherited, Limit::Events, Limit::Share, Limit::Scratch];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Limit::Learned => "learned",
            Limit::Inherited => "inherited",
            Limit::Events => "events",
            Limit::Share => "share",
            Limit::Scratch => "scratch",
        }
    }

    /// What is full, what that does, and what to do.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Limit::Learned => {
                "map LEARNED or NAMES is full (131,072 addresses or names): new addresses of names are not learned, so connections to them are denied, and those learned before stay; let fewer pods of this node ask for so many names, or lower the Eggs' dns.maxTTL"
            }
            Limit::Inherited => {
                "map INHERITED is full (65,536 connections): connections that came to a pod before its first Egg, beyond these, are judged as if the pod had opened them"
            }
            Limit::Events => {
                "the ring buffer EVENTS was full: some of what was denied, or would be in mode Audit, is counted but not recorded; enforcement does not depend on it"
            }
            Limit::Share => {
                "a pod has its full share of map LEARNED or NAMES (four times as many addresses or names as are free for all pods of the node): it learns no new addresses of names, so its connections to them are denied, and those learned before stay; see why it asks for so many names, let fewer names match, or lower the Egg's dns.maxTTL"
            }
            Limit::Scratch => {
                "all working buffers of the kernel programs were in use: DNS packets were dropped, and their senders ask again"
            }
        }
    }

    /// Whether it matters for a pod with this policy.
    #[must_use]
    pub fn concerns(self, policy: &CompiledPolicy) -> bool {
        match self {
            Limit::Learned | Limit::Scratch => !policy.names.is_empty() || !policy.automaton.is_empty(),
            Limit::Inherited | Limit::Events => true,
            // Of some pods, see `Findings::limited`.
            Limit::Share => false,
        }
    }
}

/// When each limit last turned something away.
#[derive(Debug, Default)]
pub struct Limits {
    before: Option<Counters>,
    last: BTreeMap<Limit, Instant>,
}

impl Limits {
    /// What the kernel has counted until now. The first time nothing is concluded: that may be of long ago.
    pub fn count(&mut self, counters: &Counters, now: Instant) {
        if let Some(before) = self.before.replace(*counters) {
            for (limit, counter) in [
                (Limit::Learned, Counter::LearnedFull),
                (Limit::Events, Counter::EventsLost),
                (Limit::Scratch, Counter::ScratchBusy),
            ] {
                if counters[counter as usize] > before[counter as usize] {
                    self.last.insert(limit, now);
                }
            }
        }
    }

    /// One of them turned something away.
    pub fn reach(&mut self, limit: Limit, now: Instant) {
        self.last.insert(limit, now);
    }

    /// Those that are reached.
    #[must_use]
    pub fn reached(&self, now: Instant) -> Vec<Limit> {
        let is_recent = |last: &Instant| now.saturating_duration_since(*last) < LINGER;
        self.last.iter().filter(|(_, last)| is_recent(last)).map(|(limit, _)| *limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use l7egg_ebpf_common::abi::COUNTERS;

    use super::*;

    fn counters(counter: Counter, count: u64) -> Counters {
        let mut counters = [0; COUNTERS as usize];
        counters[counter as usize] = count;
        counters
    }

    #[test]
    fn a_limit_is_reached_while_something_is_turned_away_and_a_minute_longer() {
        let (start, mut limits) = (Instant::now(), Limits::default());
        let after = |seconds| start + Duration::from_secs(seconds);
        // From before this agent, maybe.
        limits.count(&counters(Counter::LearnedFull, 7), start);
        assert!(limits.reached(start).is_empty());
        limits.count(&counters(Counter::LearnedFull, 8), after(10));
        limits.count(&counters(Counter::LearnedFull, 8), after(11));
        limits.reach(Limit::Inherited, after(30));
        assert_eq!(limits.reached(after(69)), [Limit::Learned, Limit::Inherited]);
        assert_eq!(limits.reached(after(70)), [Limit::Inherited]);
        assert!(limits.reached(after(90)).is_empty());
    }

    #[test]
    fn every_limit_has_its_name_and_says_what_is_full() {
        for limit in Limit::ALL {
            assert!(limit.message().contains("full") || limit == Limit::Scratch);
            assert!(limit.name().chars().all(|c| c.is_ascii_lowercase()));
        }
    }
}
