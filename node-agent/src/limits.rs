//! Limits of the node that are reached: what is full, and what that means. What was enforced stays enforced; what is new
//! is turned away, counted, and told for as long as it goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

pub use l7egg_crds::REASON_LIMIT_REACHED as LIMIT_REACHED;
use l7egg_ebpf_common::abi::Counter;
use l7egg_policy::CompiledPolicy;
use serde::{Deserialize, Serialize};

use crate::{datapath::Counters, linger::Lingering};

/// What can be full without any call of the agent's failing: a policy that does not fit is the failure of its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Limit {
    /// Maps `LEARNED` or `NAMES`.
    Learned,
    /// Map `INHERITED`.
    Inherited,
    /// The ring buffer `EVENTS`.
    Events,
    /// What one pod may have of maps `LEARNED` and `NAMES`, or of connections to name servers.
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
                "a pod has its full share of map LEARNED or NAMES (four times as many addresses or names as are free for all pods of the node): it learns no new addresses of names, so its connections to them are denied, and those learned before stay; see why it asks for so many names, let fewer names match, or lower the Egg's dns.maxTTL; or it has 1,024 connections to name servers, and opens no more of these until some end"
            }
            Limit::Scratch => {
                "all working buffers of the kernel programs were in use: DNS packets were dropped, and their senders ask again"
            }
        }
    }

    /// Whether it matters for every pod with this policy.
    #[must_use]
    pub fn concerns(self, policy: &CompiledPolicy) -> bool {
        match self {
            Limit::Learned | Limit::Scratch => !policy.names.is_empty() || !policy.automaton.is_empty(),
            // Of some pods, see `Limits::reached_of_pods`.
            Limit::Share | Limit::Inherited => false,
            // Says nothing of what is enforced, and any pod can bring it about.
            Limit::Events => false,
        }
    }
}

/// When limits last turned something away.
#[derive(Debug, Default)]
pub struct Limits {
    before: Option<Counters>,
    of_node: BTreeMap<Limit, Lingering>,
    of_pods: BTreeMap<(String, Limit), Lingering>,
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
                    self.reach(limit, now);
                }
            }
        }
    }

    /// One of them turned something away.
    fn reach(&mut self, limit: Limit, now: Instant) {
        self.of_node.insert(limit, Lingering::seen(self.of_node.get(&limit).copied(), now));
    }

    /// One of them turned something of this pod away.
    pub fn reach_of(&mut self, uid: &str, limit: Limit, now: Instant) {
        self.reach(limit, now);
        let of_pod = (uid.to_owned(), limit);
        let lingering = Lingering::seen(self.of_pods.get(&of_pod).copied(), now);
        self.of_pods.insert(of_pod, lingering);
    }

    /// Those that are reached.
    #[must_use]
    pub fn reached(&self, now: Instant) -> Vec<Limit> {
        self.of_node.iter().filter(|(_, it)| it.holds(now)).map(|(limit, _)| *limit).collect()
    }

    /// Those that only certain pods feel, by uid of these.
    #[must_use]
    pub fn reached_of_pods(&self, now: Instant) -> BTreeMap<String, BTreeSet<Limit>> {
        let mut reached: BTreeMap<String, BTreeSet<Limit>> = BTreeMap::new();
        for ((uid, limit), _) in self.of_pods.iter().filter(|(_, it)| it.holds(now)) {
            reached.entry(uid.clone()).or_default().insert(*limit);
        }
        reached
    }

    /// Forgets other pods than these.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.of_pods.retain(|(uid, _), _| is_known(uid));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        limits.reach_of("p", Limit::Inherited, after(30));
        assert_eq!(limits.reached(after(69)), [Limit::Learned, Limit::Inherited]);
        assert_eq!(limits.reached(after(70)), [Limit::Inherited]);
        assert_eq!(limits.reached_of_pods(after(70)), [("p".into(), [Limit::Inherited].into())].into());
        assert!(limits.reached(after(90)).is_empty() && limits.reached_of_pods(after(90)).is_empty());
        // Again, soon after: it takes longer this time.
        limits.count(&counters(Counter::LearnedFull, 9), after(91));
        assert_eq!(limits.reached(after(91 + 119)), [Limit::Learned]);
        assert!(limits.reached(after(91 + 120)).is_empty());
    }

    #[test]
    fn every_limit_has_its_name_and_says_what_is_full() {
        for limit in Limit::ALL {
            assert!(limit.message().contains("full") || limit == Limit::Scratch);
            assert!(limit.name().chars().all(|c| c.is_ascii_lowercase()));
        }
    }
}
