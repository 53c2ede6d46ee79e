//! What the API server and the cgroup tree say, taken in.

use std::time::Instant;

use super::{Input, NodeCgroup, Reconciler};
use crate::{
    cgroup::CgroupEvent,
    datapath::{Datapath, DatapathError, NODE_UID},
    desired::desired,
};

impl<D: Datapath> Reconciler<D> {
    /// Takes one input in. True if it is the last.
    pub fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Stop => return true,
            Input::Cgroup(event) => {
                match &event {
                    CgroupEvent::Appeared { uid, cgroup } => {
                        self.timeline.cgroup(uid);
                        self.holds.appeared(uid, cgroup.id, Instant::now());
                    }
                    CgroupEvent::Scanned(cgroups) => {
                        self.close_gate(cgroups);
                        let datapath = &self.datapath;
                        self.holds.scanned(cgroups, &|id| datapath.waits_at_gate(id), Instant::now());
                    }
                    CgroupEvent::Vanished { .. } | CgroupEvent::Changed => {}
                }
                self.cgroups.apply(event);
                self.place_node();
            }
            Input::ApiServers(servers) => {
                if self.inventory.set_api_servers(servers) {
                    self.desire();
                }
            }
            Input::Selected(news) => self.selected.apply(news),
            Input::Assignments(event) => {
                let first = !self.inventory.is_complete();
                if self.inventory.apply(*event) {
                    self.tell_unreadable();
                    self.desire();
                }
                if first && self.inventory.is_complete() {
                    let assignments = self.inventory.entries().count();
                    tracing::info!(
                        assignments,
                        pods = self.desired.pods.len(),
                        "assignments of this node listed"
                    );
                }
            }
        }
        false
    }

    pub(super) fn desire(&mut self) {
        let before = std::mem::take(&mut self.desired);
        self.desired = desired(&self.inventory, &self.node, &mut self.policies);
        let in_host_network = self.desired.pods.iter().filter(|(_, pod)| pod.host_network);
        in_host_network.for_each(|(uid, _)| self.datapath.in_host_network(uid));
        let new = self.desired.pods.keys().filter(|uid| !before.pods.contains_key(*uid));
        new.for_each(|uid| self.timeline.assigned(uid));
        self.place_node();
    }

    /// The node has its cgroup when it is known which are its pods'; before, they would be judged as the node itself.
    /// What is in force stays, also if that is not known any more.
    fn place_node(&mut self) {
        let Some(NodeCgroup { cgroup, is_given }) = self.node_cgroup.clone() else { return };
        let is_enforced = self.is_node_enforced();
        if !self.desired.pods.contains_key(NODE_UID) && !is_enforced || !self.cgroups.complete {
            return;
        }
        let told = if !is_given && self.cgroups.parents.len() > 1 {
            Err(DatapathError::several_kubelets(&self.cgroups.parents))
        } else {
            self.datapath.leave_alone(&self.cgroups.parents)
        };
        if let Err(error) = &told {
            self.fail(NODE_UID, error);
        }
        if told.is_ok() || is_enforced {
            self.cgroups.pods.insert(NODE_UID.to_owned(), cgroup);
        }
    }

    fn is_node_enforced(&self) -> bool {
        self.datapath.enforced().is_ok_and(|enforced| enforced.iter().any(|pod| pod.uid == NODE_UID))
    }
}
