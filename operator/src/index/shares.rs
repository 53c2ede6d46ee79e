//! How a rate that pods of several nodes share is divided among these.
//!
//! Counted as pods come and go: a ClusterEgg has a hundred thousand pods on thousands of nodes, and each of these asks for
//! its part.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use l7egg_crds::{PolicySpec, RateShare, ShapingScope};
use l7egg_policy::Limit;

use super::ObjectKey;

/// Those that share a rate: all pods of the Egg, or those of this namespace.
type Group = Option<String>;

/// The pods of one Egg that share its rate, if it has one that pods share.
#[derive(Debug, Default)]
pub(super) struct Sharers {
    limit: Option<Limit>,
    groups: BTreeMap<Group, Sharing>,
    /// Pods of each node, by group.
    nodes: HashMap<String, BTreeMap<Group, u64>>,
    /// Groups whose rate is to be divided otherwise than before.
    changed: BTreeSet<Group>,
}

#[derive(Debug, Default)]
struct Sharing {
    pods: u64,
    nodes: BTreeSet<String>,
}

impl Sharers {
    /// What the policy says from now on. `pods` are those that the Egg has now, each with its node: they are counted anew if
    /// others share than before.
    pub fn follow<'a>(
        &mut self,
        policy: &PolicySpec,
        pods: impl Iterator<Item = (&'a String, &'a ObjectKey)>,
    ) {
        let limit = Limit::of(policy).filter(|limit| limit.scope != ShapingScope::Pod);
        let scope = |limit: &Option<Limit>| limit.as_ref().map(|limit| limit.scope);
        let is_same = scope(&self.limit) == scope(&limit);
        self.limit = limit;
        if !is_same {
            *self = Sharers { limit: self.limit.take(), ..Sharers::default() };
            pods.for_each(|(node, pod)| _ = self.add(node, &pod.namespace));
            // Whose policy is another is looked at anyway.
            self.changed.clear();
        }
    }

    /// A pod is there; whether it shares.
    pub fn add(&mut self, node: &str, namespace: &str) -> bool {
        let Some(group) = self.group(namespace) else { return false };
        let sharing = self.groups.entry(group.clone()).or_default();
        sharing.pods += 1;
        if !sharing.nodes.contains(node) {
            sharing.nodes.insert(node.to_owned());
        }
        *self.nodes.entry(node.to_owned()).or_default().entry(group.clone()).or_default() += 1;
        self.changed.insert(group);
        true
    }

    /// A pod that was there is not any more; whether it shared.
    pub fn remove(&mut self, node: &str, namespace: &str) -> bool {
        let Some(group) = self.group(namespace) else { return false };
        let (Some(sharing), Some(here)) = (self.groups.get_mut(&group), self.nodes.get_mut(node)) else {
            return false;
        };
        sharing.pods = sharing.pods.saturating_sub(1);
        let Some(pods) = here.get_mut(&group) else { return false };
        *pods = pods.saturating_sub(1);
        if *pods == 0 {
            here.remove(&group);
            sharing.nodes.remove(node);
        }
        if here.is_empty() {
            self.nodes.remove(node);
        }
        if sharing.pods == 0 {
            self.groups.remove(&group);
        }
        self.changed.insert(group);
        true
    }

    /// The nodes whose parts are others than when this was asked the last time.
    pub fn take_changed(&mut self) -> BTreeSet<&str> {
        let changed = std::mem::take(&mut self.changed);
        let groups = changed.into_iter().filter_map(|group| self.groups.get(&group));
        groups.flat_map(|sharing| &sharing.nodes).map(String::as_str).collect()
    }

    /// The parts of one node: as much of the rate as it has of the pods that share it.
    pub fn of_node(&self, node: &str) -> Vec<RateShare> {
        let (Some(limit), Some(here)) = (&self.limit, self.nodes.get(node)) else { return Vec::new() };
        let share = |(group, here): (&Group, &u64)| {
            let total = self.groups.get(group)?.pods;
            let bits_per_second = part(limit.bits_per_second, *here, total);
            Some(RateShare { namespace: group.clone(), bits_per_second })
        };
        here.iter().filter_map(share).collect()
    }

    fn group(&self, namespace: &str) -> Option<Group> {
        match self.limit.as_ref()?.scope {
            ShapingScope::Pod => None,
            ShapingScope::Egg => Some(None),
            ShapingScope::Namespace => Some(Some(namespace.to_owned())),
        }
    }
}

fn part(rate: u64, here: u64, total: u64) -> i64 {
    let part = u128::from(rate) * u128::from(here) / u128::from(total.max(1));
    i64::try_from(part).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use l7egg_crds::Shaping;

    use super::*;

    fn policy(scope: &str) -> PolicySpec {
        let shaping: Shaping =
            serde_json::from_value(serde_json::json!({"egress": {"rate": "50M", "scope": scope}})).unwrap();
        PolicySpec { shaping: Some(shaping), ..PolicySpec::default() }
    }

    /// Twelve pods of a shop on node a; seven of it and one of a bank on node b.
    fn pods() -> Vec<(String, ObjectKey)> {
        let many = |node: &str, namespace: &str, count: usize| {
            let pod = |n| (node.to_owned(), ObjectKey::new(namespace, format!("p{n}")));
            (0..count).map(pod).collect::<Vec<_>>()
        };
        [many("a", "shop", 12), many("b", "shop", 7), many("b", "bank", 1)].concat()
    }

    fn sharers(scope: &str) -> Sharers {
        let mut sharers = Sharers::default();
        sharers.follow(&policy(scope), pods().iter().map(|(node, pod)| (node, pod)));
        sharers
    }

    fn of(sharers: &Sharers, node: &str) -> Vec<(Option<String>, i64)> {
        let shares = sharers.of_node(node).into_iter();
        shares.map(|share| (share.namespace, share.bits_per_second)).collect()
    }

    #[test]
    fn by_pods_and_never_more_than_the_whole() {
        let of = |scope, node| of(&sharers(scope), node);
        assert_eq!(of("Egg", "a"), [(None, 30_000_000)]);
        assert_eq!(of("Egg", "b"), [(None, 20_000_000)]);
        assert_eq!(of("Namespace", "a"), [(Some("shop".into()), 31_578_947)]);
        assert_eq!(
            of("Namespace", "b"),
            [(Some("bank".into()), 50_000_000), (Some("shop".into()), 18_421_052)]
        );
        assert_eq!(of("Pod", "a"), []);
        assert_eq!(of("Egg", "c"), []);
    }

    #[test]
    fn a_pod_changes_the_parts_of_those_that_share_with_it() {
        let mut sharers = sharers("Namespace");
        assert_eq!(sharers.take_changed(), BTreeSet::new());
        assert!(sharers.add("c", "bank"));
        assert_eq!(sharers.take_changed(), ["b", "c"].into());
        assert_eq!(of(&sharers, "c"), [(Some("bank".into()), 25_000_000)]);
        assert!(sharers.remove("c", "bank"));
        assert_eq!(sharers.take_changed(), ["b"].into());
        assert_eq!(of(&sharers, "c"), []);
        let mut alone = self::sharers("Pod");
        assert!(!alone.add("c", "bank"));
    }

    #[test]
    fn another_rate_counts_nobody_anew_and_another_scope_everybody() {
        let mut sharers = sharers("Egg");
        sharers.follow(&policy("Egg"), std::iter::empty());
        assert_eq!(of(&sharers, "a"), [(None, 30_000_000)]);
        sharers.follow(&policy("Namespace"), pods().iter().map(|(node, pod)| (node, pod)));
        assert_eq!(of(&sharers, "a"), [(Some("shop".into()), 31_578_947)]);
        sharers.follow(&PolicySpec::default(), std::iter::empty());
        assert_eq!(of(&sharers, "a"), []);
    }
}
