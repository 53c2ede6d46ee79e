//! How a reconciler begins: with what is in force, and with what it is to know and do besides.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{
    NodeCgroup, Reconciler,
    backstops::Backstops,
    ending::Found,
    glance::Wiring,
    network::Unfound,
    pace::{EnforcePace, ShapingPace},
    retire::Retirement,
    timeline::Timeline,
};
use crate::{
    cgroup::{Follower, PodCgroups},
    datapath::{Datapath, EnforcedPod},
    desired::Desired,
    hold::{HoldSettings, Holds},
    inventory::Inventory,
    limits::Limits,
    metrics::Metrics,
    policies::PolicyCache,
    resolvers::NodeResolvers,
    room::Room,
    selected::Selected,
};

impl<D: Datapath> Reconciler<D> {
    /// A reconciler that knows nothing but what is in force. `inventory` is empty.
    pub fn new(
        datapath: D,
        inventory: Inventory,
        node: NodeResolvers,
        hold: HoldSettings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let before: Vec<EnforcedPod> = datapath.enforced().into_iter().flatten().collect();
        // What was held stays so until it is decided.
        let mut holds = Holds::new(hold);
        before
            .iter()
            .filter(|pod| pod.held)
            .for_each(|pod| holds.appeared(&pod.uid, pod.cgroup_id, Instant::now()));
        let older = datapath.older();
        older
            .iter()
            .filter(|pod| pod.held)
            .for_each(|pod| holds.appeared(&pod.uid, pod.cgroup_id, Instant::now()));
        let older: BTreeMap<String, u64> = older.into_iter().map(|pod| (pod.uid, pod.cgroup_id)).collect();
        // The agent before may have ended between the change of a policy and this.
        let unsettled: BTreeSet<String> = before.into_iter().map(|pod| pod.uid).collect();
        let mut reconciler = Reconciler {
            datapath,
            node,
            metrics,
            inventory,
            cgroups: PodCgroups::default(),
            selected: Selected::default(),
            is_told_of_pods: false,
            unwatched: BTreeMap::new(),
            has_found_pods: false,
            found: Found::new(unsettled.iter().chain(older.keys()).cloned()),
            unassigned: BTreeMap::new(),
            older,
            retirement: Retirement::default(),
            heeds_annotations: false,
            holds,
            held: BTreeMap::new(),
            follower: None,
            node_cgroup: None,
            boot_id: None,
            policies: PolicyCache::default(),
            desired: Desired::default(),
            is_stale: false,
            in_force_of_cluster: BTreeMap::new(),
            failures: BTreeMap::new(),
            unshaped: BTreeMap::new(),
            shaping: ShapingPace::default(),
            wiring: Wiring::default(),
            unfound: Unfound::default(),
            enforcing: EnforcePace::default(),
            is_unfinished: false,
            timeline: Timeline::default(),
            limits: Limits::default(),
            room: Room::default(),
            unsettled,
            told_unsettled: false,
            unsettled_until: BTreeMap::new(),
            told_unreadable: BTreeMap::new(),
            told_unknown: false,
            told_uncovered: BTreeSet::new(),
            told_crowd: false,
            told_unheld: BTreeSet::new(),
            told_gate: None,
            told_unmended: None,
            backstops: Backstops::default(),
        };
        reconciler.open_gate();
        reconciler
    }

    /// Is told at once of what comes and goes in divided pods; without it, once a second.
    #[must_use]
    pub fn with_follower(self, follower: Follower) -> Self {
        Reconciler { follower: Some(follower), ..self }
    }

    /// Is told of pods, namespaces and, unless it is `without_eggs`, Eggs. Until all of them are listed, no pod is free because no Egg
    /// selects it.
    #[must_use]
    pub fn with_pods(self, selected: Selected) -> Self {
        Reconciler { is_told_of_pods: true, selected, ..self }
    }

    /// With bandwidth limits for pods that no Egg selects, by their annotations.
    #[must_use]
    pub fn with_annotations(self) -> Self {
        Reconciler { heeds_annotations: true, ..self }
    }

    /// With the node itself as a subject, whose cgroup this is.
    #[must_use]
    pub fn with_node(mut self, cgroup: NodeCgroup) -> Self {
        self.node_cgroup = Some(cgroup);
        self
    }

    /// With the boot that its reports are about.
    #[must_use]
    pub fn with_boot_id(self, boot_id: Option<String>) -> Self {
        Reconciler { boot_id, ..self }
    }
}
