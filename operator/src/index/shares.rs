//! How a rate that pods of several nodes share is divided among these.

use std::collections::BTreeMap;

use l7egg_crds::{PolicySpec, RateShare, ShapingScope};
use l7egg_policy::Limit;

use super::egg_state::NodeState;

/// Whether a policy has a rate that pods share.
pub(super) fn is_shared(policy: &PolicySpec) -> bool {
    Limit::of(policy).is_some_and(|limit| limit.scope != ShapingScope::Pod)
}

/// The parts of one node: as much of the rate as it has of the pods that share it.
pub(super) fn shares(policy: &PolicySpec, node: &str, nodes: &BTreeMap<String, NodeState>) -> Vec<RateShare> {
    let Some(limit) = Limit::of(policy) else { return Vec::new() };
    let group = |namespace: &str| match limit.scope {
        ShapingScope::Pod => None,
        ShapingScope::Egg => Some(None),
        ShapingScope::Namespace => Some(Some(namespace.to_owned())),
    };
    let mut all: BTreeMap<Option<String>, (u64, u64)> = BTreeMap::new();
    for (name, state) in nodes {
        for pod in &state.pods {
            let Some(group) = group(&pod.namespace) else { return Vec::new() };
            let (here, total) = all.entry(group).or_default();
            *here += u64::from(name == node);
            *total += 1;
        }
    }
    let here = all.into_iter().filter(|(_, (here, _))| *here > 0);
    here.map(|(namespace, (here, total))| RateShare {
        namespace,
        bits_per_second: part(limit.bits_per_second, here, total),
    })
    .collect()
}

fn part(rate: u64, here: u64, total: u64) -> i64 {
    let part = u128::from(rate) * u128::from(here) / u128::from(total.max(1));
    i64::try_from(part).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use l7egg_crds::Shaping;

    use super::*;
    use crate::index::ObjectKey;

    fn policy(scope: &str) -> PolicySpec {
        let shaping: Shaping =
            serde_json::from_value(serde_json::json!({"egress": {"rate": "50M", "scope": scope}})).unwrap();
        PolicySpec { shaping: Some(shaping), ..PolicySpec::default() }
    }

    fn nodes(pods: &[(&str, &str, usize)]) -> BTreeMap<String, NodeState> {
        let key = |namespace: &str, name: String| ObjectKey { namespace: namespace.into(), name };
        let mut nodes: BTreeMap<String, NodeState> = BTreeMap::new();
        for (node, namespace, count) in pods {
            let state = nodes.entry((*node).into()).or_insert_with(|| NodeState {
                assignment: key("x", (*node).into()),
                host: None,
                pods: BTreeSet::new(),
                tally: None,
            });
            state.pods.extend((0..*count).map(|n| key(namespace, format!("p{n}"))));
        }
        nodes
    }

    #[test]
    fn by_pods_and_never_more_than_the_whole() {
        let nodes = nodes(&[("a", "shop", 12), ("b", "shop", 7), ("b", "bank", 1)]);
        let of = |scope, node| {
            let shares = shares(&policy(scope), node, &nodes);
            shares.into_iter().map(|share| (share.namespace, share.bits_per_second)).collect::<Vec<_>>()
        };
        assert_eq!(of("Egg", "a"), [(None, 30_000_000)]);
        assert_eq!(of("Egg", "b"), [(None, 20_000_000)]);
        assert_eq!(of("Namespace", "a"), [(Some("shop".into()), 31_578_947)]);
        assert_eq!(
            of("Namespace", "b"),
            [(Some("bank".into()), 50_000_000), (Some("shop".into()), 18_421_052)]
        );
        assert_eq!(of("Pod", "a"), []);
        assert_eq!(of("Egg", "c"), []);
        assert!(is_shared(&policy("Egg")) && !is_shared(&policy("Pod")));
    }
}
