//! What the API server and the cgroup tree say, taken in.

use std::{path::PathBuf, time::Instant};

use chrono::{SecondsFormat, Utc};
use kube::runtime::watcher::Event;
use l7egg_crds::SYSTEM_NAMESPACE;
use l7egg_ebpf_common::abi::PODS_CGROUPS;

use super::{Apart, Input, NodeCgroup, Reconciler};
use crate::{
    cgroup::{CgroupEvent, PodCgroups},
    datapath::{Datapath, DatapathError, NODE_UID},
    desired::desired,
    kinds::Kind,
    plan::Operation,
    resolvers::resolv_conf,
    selected::News,
    state::Unwatched,
};

/// What an input means for the loop. In this order the one that counts most is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Taken {
    /// Nothing, or what the next tick is soon enough for.
    Nothing,
    /// Something is another than before.
    News,
    /// It is the last.
    Stop,
}

impl<D: Datapath> Reconciler<D> {
    /// Takes one input in.
    pub fn take(&mut self, input: Input) -> Taken {
        let is_news = match input {
            Input::Stop => return Taken::Stop,
            Input::Counted(input, _permit) => return self.take(*input),
            Input::Cgroup(event) => {
                match &event {
                    CgroupEvent::Appeared { uid, cgroup } => {
                        self.timeline.cgroup(uid);
                        self.holds.appeared(uid, cgroup.id, Instant::now());
                    }
                    CgroupEvent::Scanned(cgroups) => {
                        self.has_found_pods |= cgroups.complete;
                        self.close_gate(cgroups);
                        let datapath = &self.datapath;
                        self.holds.scanned(cgroups, &|id| datapath.waits_at_gate(id), Instant::now());
                    }
                    CgroupEvent::Changed => self.look_for_sandboxes(),
                    CgroupEvent::Vanished { .. } => {}
                }
                let is_of_containers = matches!(event, CgroupEvent::Changed);
                let changed = self.cgroups.apply(event);
                // What a pod's resolver was told depends on when the pod began.
                self.is_stale |= changed && !is_of_containers && !self.node.former.is_empty();
                self.place_node();
                true
            }
            Input::Filters(interfaces) => self.heed_filters(&interfaces, Instant::now()),
            Input::ApiServers(servers) => {
                let is_news = self.inventory.set_api_servers(servers);
                self.is_stale |= is_news;
                is_news
            }
            Input::Resolvers(resolvers) => {
                self.node = resolvers;
                self.is_stale = true;
                true
            }
            Input::Selected(news) => self.take_selected(news),
            Input::Unwatched(kind, Some(error)) => self.lose(kind, error),
            Input::Unwatched(kind, None) => self.unwatched.remove(&kind).is_some(),
            Input::Assignments(event) => {
                let first = !self.inventory.is_complete();
                let is_news = self.inventory.apply(*event);
                if is_news {
                    self.tell_unreadable();
                    self.is_stale = true;
                }
                if first && self.inventory.is_complete() {
                    let assignments = self.inventory.entries().count();
                    tracing::info!(assignments, "assignments of this node listed");
                }
                is_news
            }
        };
        if is_news { Taken::News } else { Taken::Nothing }
    }

    /// A kind cannot be watched. True if that, or its reason, is news.
    fn lose(&mut self, kind: Kind, error: String) -> bool {
        let lost = self.unwatched.entry(kind).or_insert_with(|| Unwatched {
            kind: kind.to_string(),
            since: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
            error: String::new(),
        });
        let is_news = lost.error != error;
        lost.error = error;
        is_news
    }

    /// Whose pod it is may be known only after somebody has named it. True if it changes anything.
    fn take_selected(&mut self, news: News) -> bool {
        let is_new = match &news {
            News::Pod(Event::Apply(pod)) => {
                !self.selected.knows(&pod.uid)
                    && (pod.host_network || self.desired.pods.contains_key(&pod.uid))
            }
            News::Pod(Event::InitDone) => true,
            _ => false,
        };
        let changed = self.selected.apply(news);
        self.is_stale |= is_new;
        changed || is_new
    }

    /// Finds out anew what is to be in force, if there is news.
    pub(super) fn desire(&mut self) {
        if !std::mem::take(&mut self.is_stale) && !self.desired.is_unfinished {
            return;
        }
        let before = std::mem::take(&mut self.desired);
        let Reconciler { cgroups, node, .. } = self;
        self.desired = desired(
            &self.inventory,
            &|pod| resolv_conf(pod, began(cgroups, &pod.uid), node),
            &|entry, pod| {
                // In the system's own namespace nobody but the operator writes.
                let is_anybodys = entry.object.key.namespace != SYSTEM_NAMESPACE;
                self.is_told_of_pods && is_anybodys && self.selected.is_foreign(pod, entry.good.is_some())
            },
            &mut self.policies,
        );
        let in_host_network = self.desired.pods.iter().filter(|(_, pod)| pod.host_network);
        in_host_network.for_each(|(uid, _)| self.datapath.in_host_network(uid));
        let new = self.desired.pods.keys().filter(|uid| !before.pods.contains_key(*uid));
        new.for_each(|uid| self.timeline.assigned(uid));
        self.place_node();
    }

    /// The node has its cgroup when it is known which are its pods'; before, they would be judged as the node itself.
    /// What is in force stays, also if that is not known any more.
    fn place_node(&mut self) {
        let Some(NodeCgroup { cgroup, is_given, .. }) = self.node_cgroup.clone() else { return };
        let is_enforced = self.is_node_enforced();
        if !self.desired.pods.contains_key(NODE_UID) && !is_enforced || !self.cgroups.complete {
            return;
        }
        let told = if !is_given && self.cgroups.in_use.len() > 1 {
            // No kubelet's pods are the node's own processes, whatever is in force for these.
            let told = if is_enforced { self.leave_apart(&[]) } else { Ok(()) };
            told.and(Err(DatapathError::several_kubelets(&self.cgroups.in_use)))
        } else {
            self.leave_apart(&[])
        };
        if let Err(error) = &told {
            self.fail(NODE_UID, error);
        }
        if told.is_ok() || is_enforced {
            self.cgroups.pods.insert(NODE_UID.to_owned(), cgroup);
        }
    }

    /// What the node's own Eggs leave alone may change with what is in force.
    pub(super) fn part(&mut self, operations: &[Operation]) {
        let changes = self.node_cgroup.as_ref().is_some_and(|node| node.apart == Apart::EnforcedPods);
        if changes
            && self.cgroups.complete
            && let Err(error) = self.leave_apart(operations)
        {
            self.fail(NODE_UID, &error);
        }
    }

    /// Tells the programs, as it is to be before these operations.
    fn leave_apart(&mut self, operations: &[Operation]) -> Result<(), DatapathError> {
        if self.node_cgroup.as_ref().is_none_or(|node| node.apart == Apart::AllPods) {
            return self.datapath.leave_alone(&self.cgroups.parents);
        }
        let is_let_go = |uid: &str| {
            operations
                .iter()
                .any(|it| matches!(it, Operation::Release { uid: released, .. } if released == uid))
        };
        let enforced = self.datapath.enforced()?;
        let own = enforced.iter().filter(|pod| pod.uid != NODE_UID && !pod.held && !is_let_go(&pod.uid));
        // Those of another version too, which have their programs.
        let older = self.older.iter().filter(|(uid, _)| *uid != NODE_UID).map(|(uid, id)| (uid, *id));
        let own = own.map(|pod| (&pod.uid, pod.cgroup_id)).chain(older);
        let here = own.filter_map(|(uid, id)| self.cgroups.pods.get(uid).filter(|cgroup| cgroup.id == id));
        let mut apart: Vec<PathBuf> = here.map(|cgroup| cgroup.path.clone()).collect();
        apart.sort();
        apart.dedup();
        let crowd = apart.len() > PODS_CGROUPS as usize;
        if crowd && !std::mem::replace(&mut self.told_crowd, crowd) {
            tracing::warn!(
                with_eggs = apart.len(),
                "more than {PODS_CGROUPS} have Eggs of their own: what the others send has to be allowed by the node's Eggs too, if there are any"
            );
        }
        apart.truncate(PODS_CGROUPS as usize);
        self.datapath.leave_alone(&apart)
    }

    fn is_node_enforced(&self) -> bool {
        self.datapath.enforced().is_ok_and(|enforced| enforced.iter().any(|pod| pod.uid == NODE_UID))
    }
}

/// The id of a pod's cgroup, if it has one. The node's own programs began before all pods.
fn began(cgroups: &PodCgroups, uid: &str) -> Option<u64> {
    if uid == NODE_UID { Some(0) } else { cgroups.pods.get(uid).map(|cgroup| cgroup.id) }
}
