//! What the kubelet gave to pods, kept beyond the agent: pods that run go on asking the servers that they began with, and the next agent
//! finds only a file that may say something else by then.

use std::{fmt::Debug, net::IpAddr, path::PathBuf};

use l7egg_policy::DomainName;
use serde::{Deserialize, Serialize};

use crate::{
    causes::causes,
    cgroup::scan,
    kernel::{NOTE_MAX, Note},
    resolvers::{Former, NodeResolvers},
};

/// So many of those before are kept.
const MOST: usize = 9;

/// What is known from before, and of the pods that began then.
pub trait Past: Debug + Send {
    /// What was kept, as [`write`] has it.
    fn recall(&self) -> Option<String>;
    /// Keeps it in place of what was.
    fn keep(&self, text: &str);
    /// Ids of all pods' cgroups, unless there may be others.
    fn pods(&self) -> Option<Vec<u64>>;
}

/// That of a node.
#[derive(Debug)]
pub struct PastOfNode {
    /// What outlives agents.
    pub note: Note,
    /// Where pods' cgroups are.
    pub roots: Vec<PathBuf>,
}

impl Past for PastOfNode {
    fn recall(&self) -> Option<String> {
        self.note.read().unwrap_or_else(|error| {
            tracing::warn!(
                error = causes(&error),
                "the DNS servers from before cannot be read: pods that began with others than those of now cannot ask them"
            );
            None
        })
    }

    fn keep(&self, text: &str) {
        if let Err(error) = self.note.write(text) {
            tracing::warn!(
                error = causes(&error),
                "the DNS servers cannot be kept: when they change, and this agent then starts again, pods that began with those of now cannot ask them"
            );
        }
    }

    fn pods(&self) -> Option<Vec<u64>> {
        let found = scan(&self.roots).cgroups;
        found.complete.then(|| found.pods.values().map(|cgroup| cgroup.id).collect())
    }
}

impl NodeResolvers {
    /// This, which is given from now on, after what was before.
    #[must_use]
    pub fn after(self, before: &NodeResolvers) -> NodeResolvers {
        let now = NodeResolvers { former: Vec::new(), ..self };
        let last = NodeResolvers { former: Vec::new(), ..before.clone() };
        // What is known of the cluster's DNS before the file has been read was given to nobody.
        let is_any = !last.node.is_empty() || !last.cluster.is_empty() && last.cluster != now.cluster;
        let last = Some(last).filter(|last| is_any && *last != now);
        let others = before.former.iter().filter(|it| it.given != now && Some(&it.given) != last.as_ref());
        let others = others.cloned().collect::<Vec<_>>();
        let last = last.map(|given| Former { until: None, given });
        NodeResolvers { former: last.into_iter().chain(others).take(MOST).collect(), ..now }
    }

    /// Finds out which pods began before what was given last, and forgets what none of them has.
    pub fn look_at_pods(&mut self, pods: &[u64]) {
        let newest = pods.iter().copied().max().unwrap_or(0);
        self.former.iter_mut().for_each(|former| _ = former.until.get_or_insert(newest));
        self.former.retain(|former| pods.iter().any(|id| former.is_of(*id)));
    }
}

/// One of a list: what is given now, then what was before, the latest first.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Given {
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    cluster: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_domain: Option<String>,
    node: Vec<IpAddr>,
    node_search: Vec<String>,
}

impl Given {
    fn new(until: Option<u64>, given: &NodeResolvers) -> Self {
        Given {
            until,
            cluster: given.cluster.clone(),
            cluster_domain: given.cluster_domain.as_ref().map(ToString::to_string),
            node: given.node.clone(),
            node_search: given.node_search.iter().map(ToString::to_string).collect(),
        }
    }

    fn resolvers(self) -> NodeResolvers {
        let parse = |domain: String| DomainName::parse(&domain).ok();
        NodeResolvers {
            cluster: self.cluster,
            cluster_domain: self.cluster_domain.and_then(parse),
            node: self.node,
            node_search: self.node_search.into_iter().filter_map(parse).collect(),
            former: Vec::new(),
        }
    }
}

/// As a text that [`read`] reads. The oldest are left out where it would be too long.
#[must_use]
pub fn write(resolvers: &NodeResolvers) -> String {
    let former = resolvers.former.iter().map(|former| Given::new(former.until, &former.given));
    let mut all: Vec<Given> = std::iter::once(Given::new(None, resolvers)).chain(former).collect();
    loop {
        let text = serde_json::to_string(&all).unwrap_or_default();
        if text.len() <= NOTE_MAX || all.pop().is_none() {
            return text;
        }
    }
}

/// What was written. Nothing where that is not to be understood.
#[must_use]
pub fn read(text: &str) -> Option<NodeResolvers> {
    let mut all = serde_json::from_str::<Vec<Given>>(text).ok()?.into_iter();
    let now = all.next()?.resolvers();
    let former = all.map(|given| Former { until: given.until, given: given.resolvers() });
    Some(NodeResolvers { former: former.collect(), ..now })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(server: &str) -> NodeResolvers {
        NodeResolvers {
            cluster: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: DomainName::parse("cluster.local").ok(),
            node: vec![server.parse().unwrap()],
            node_search: vec![DomainName::parse("corp.example").unwrap()],
            ..NodeResolvers::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut all = node("192.0.2.2").after(&node("192.0.2.1"));
        assert_eq!(read(&write(&all)).as_ref(), Some(&all));
        all.look_at_pods(&[7, 9]);
        assert_eq!(all.former[0].until, Some(9));
        assert_eq!(read(&write(&all)), Some(all));
        assert_eq!(read("[{}]"), Some(NodeResolvers::default()));
        for nonsense in ["", "{", "[]", "[{\"node\": [\"x\"]}]"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_is_known_of_the_cluster_before_the_file_is_read_was_given_to_nobody() {
        let first = node("192.0.2.1");
        let known = NodeResolvers { cluster: first.cluster.clone(), ..NodeResolvers::default() };
        assert!(first.clone().after(&known).former.is_empty());
        let another = NodeResolvers { cluster: vec!["10.96.0.11".parse().unwrap()], ..known };
        assert_eq!(first.after(&another).former.len(), 1);
    }

    #[test]
    fn what_is_too_long_loses_the_oldest() {
        let long: Vec<DomainName> = (0..32)
            .map(|number| {
                let label = "a".repeat(60);
                DomainName::parse(&format!("{label}.{label}.{label}.n{number}.example")).unwrap()
            })
            .collect();
        let mut all = NodeResolvers::default();
        for last in 1..20 {
            let now = NodeResolvers { node_search: long.clone(), ..node(&format!("192.0.2.{last}")) };
            all = now.after(&all);
        }
        assert_eq!(all.former.len(), MOST);
        let text = write(&all);
        let kept = read(&text).unwrap();
        assert!(text.len() <= NOTE_MAX && !kept.former.is_empty());
        assert_eq!(kept.former[..], all.former[..kept.former.len()]);
    }

    #[test]
    fn what_comes_back_is_not_former_and_what_no_pod_has_is_forgotten() {
        let (one, two) = (node("192.0.2.1"), node("192.0.2.2"));
        let mut all = two.clone().after(&one);
        all.look_at_pods(&[5]);
        all = one.clone().after(&all);
        assert_eq!(all.former, [Former { until: None, given: two.clone() }]);
        all.look_at_pods(&[5, 8]);
        all = two.clone().after(&all);
        all.look_at_pods(&[5, 8, 11]);
        assert_eq!(all.former, [Former { until: Some(11), given: one }]);
        assert_eq!(two.clone().after(&all), all, "nothing new");
        all.look_at_pods(&[12]);
        assert_eq!(all, two);
    }
}
