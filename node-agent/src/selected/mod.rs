//! Which pods of this node some Egg selects, by the agent's own look at pods, Eggs and namespaces: it comes as soon as
//! the kubelet's, and needs no operator. Only for holding new pods until the operator has assigned them, for leaving others as they are
//! until all news of them has come, and for the bandwidth limits of pods that have none from an Egg; what is enforced is in the
//! assignments alone. Plain data: news in, answers out.

mod fields;
mod listed;
mod read;

use std::{cell::RefCell, collections::HashMap, net::IpAddr};

use kube::runtime::watcher::Event;
use l7egg_crds::{AssignedPod, Labels, SYSTEM_NAMESPACE, Selection};

use self::listed::Listed;
pub use self::read::{ClusterEggObject, EggObject, PodObject, cluster_egg, egg, namespace, pod};
use crate::datapath::NODE_UID;
use crate::hold::is_static;
use crate::kinds::Kind;

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// Whether it is in the node's network.
    pub host_network: bool,
    /// The addresses that its sandbox was given, as the kubelet says (`status.podIPs`).
    pub addresses: Vec<IpAddr>,
    /// Its annotation [`EGRESS_BANDWIDTH_ANNOTATION`](l7egg_crds::EGRESS_BANDWIDTH_ANNOTATION), as it is written.
    pub egress_bandwidth: Option<String>,
    /// Whether its containers have ended for good.
    pub finished: bool,
    /// Whether it is being deleted: its containers are told to end, and may take their time.
    pub is_ending: bool,
}

impl NodePod {
    /// What the cluster needs to come up must not wait for the cluster; and what is finished sends nothing.
    fn is_never_held(&self) -> bool {
        self.host_network || self.finished || self.namespace == SYSTEM_NAMESPACE
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedNamespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Whether it is being deleted, with all that is in it, in whatever order.
    pub is_ending: bool,
}

/// An Egg or ClusterEgg, as far as it can be a reason to hold a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEgg {
    /// For people: `Egg shop/checkout`. Unique.
    pub name: String,
    /// Its pods, where it denies anything and that can be read.
    pub selection: Option<Selection>,
    /// What the operator says of it as it is now; `None` if it has not looked at it yet.
    pub accepted: Option<bool>,
    /// It was not accepted as it is now, and as it was before it stays in force.
    pub stays_in_force: bool,
}

/// One of the API server's objects is there, or gone.
#[derive(Clone, Debug)]
pub enum News {
    /// A pod of this node.
    Pod(Event<NodePod>),
    /// An Egg.
    Egg(Event<NamedEgg>),
    /// A ClusterEgg.
    ClusterEgg(Event<NamedEgg>),
    /// A namespace.
    Namespace(Event<NamedNamespace>),
}

/// What is known of a pod, as a reason to hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, or not enough yet.
    Unknown,
    /// No Egg that could be enforced selects it, or it is one that is never held: in its node's network, or l7egg's own.
    Free,
    /// These Eggs select it.
    Selected {
        /// Namespace and name of the pod.
        pod: (String, String),
        /// Their names.
        eggs: Vec<String>,
    },
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct Selected {
    pods: Listed<NodePod>,
    eggs: Listed<Held>,
    cluster_eggs: Listed<Held>,
    namespaces: Listed<NamedNamespace>,
    /// Answers that were given since anything but pods changed, as if every pod could be held.
    verdicts: RefCell<HashMap<String, Verdict>>,
    /// Eggs are not told.
    without_eggs: bool,
}

/// An Egg with what it asked for before: that stays in force while an edit is not judged yet, or was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    name: String,
    in_force: Option<Selection>,
    asked: Option<Selection>,
}

impl Selected {
    /// Is going to be told of pods and namespaces only: as if there were no Eggs.
    #[must_use]
    pub fn without_eggs() -> Self {
        Selected { without_eggs: true, ..Selected::default() }
    }

    /// Takes in what the API server says. Whether anything is another than before.
    pub fn apply(&mut self, news: News) -> bool {
        let changed = match news {
            News::Pod(event) => {
                if let Event::Apply(pod) | Event::Delete(pod) | Event::InitApply(pod) = &event {
                    self.verdicts.get_mut().remove(&pod.uid);
                }
                if !matches!(event, Event::InitDone) {
                    // Says nothing of other pods.
                    return self.pods.apply(event, |pod| pod.uid.clone(), |pod, _| pod);
                }
                self.pods.apply(event, |pod| pod.uid.clone(), |pod, _| pod)
            }
            News::Egg(event) => self.eggs.apply(event, |egg| egg.name.clone(), Held::new),
            News::ClusterEgg(event) => self.cluster_eggs.apply(event, |egg| egg.name.clone(), Held::new),
            News::Namespace(event) => self.namespaces.apply(event, |it| it.name.clone(), |it, _| it),
        };
        if changed {
            self.verdicts.get_mut().clear();
        }
        changed
    }

    /// Whether a full list of everything has come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pods.complete && self.has_eggs()
    }

    /// The kinds of which no full list has come, among those that are going to be told.
    pub fn unlisted(&self) -> impl Iterator<Item = Kind> {
        let eggs = [(Kind::Eggs, self.eggs.complete), (Kind::ClusterEggs, self.cluster_eggs.complete)];
        let others = [(Kind::Pods, self.pods.complete), (Kind::Namespaces, self.namespaces.complete)];
        let eggs = eggs.into_iter().filter(|_| !self.without_eggs);
        others.into_iter().chain(eggs).filter(|(_, complete)| !complete).map(|(kind, _)| kind)
    }

    /// The pods of this node, once a full list of them has come.
    pub fn pods(&self) -> Option<impl Iterator<Item = &NodePod>> {
        self.pods.complete.then(|| self.pods.items.values())
    }

    /// The pod with this uid, as far as is known.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&NodePod> {
        self.pods.items.get(uid)
    }

    /// Whether there is a pod with this uid, as far as is known.
    #[must_use]
    pub fn knows(&self, uid: &str) -> bool {
        self.pods.items.contains_key(uid)
    }

    /// Whether an assignment of a namespace says of a pod what the API server does not: it is in another namespace, or not in its node's
    /// network. Of pods that are not known, only the last counts: who is said to be in its node's network is held by nobody, and may send
    /// what it likes there. Of what an assignment says that cannot be read, `is_read` is false, and the namespace is what counts.
    #[must_use]
    pub fn is_foreign(&self, pod: &AssignedPod, is_read: bool) -> bool {
        match self.pods.items.get(&pod.uid) {
            None => is_read && pod.host_network,
            Some(known) => {
                known.namespace != pod.namespace || is_read && known.host_network != pod.host_network
            }
        }
    }

    /// What is known of the pod with this uid, as a reason to hold it.
    #[must_use]
    pub fn verdict(&self, uid: &str) -> Verdict {
        match self.pods.items.get(uid) {
            Some(pod) if pod.is_never_held() => Verdict::Free,
            _ => self.selection(uid),
        }
    }

    /// The same, as if every pod could be held.
    fn selection(&self, uid: &str) -> Verdict {
        if let Some(known) = self.verdicts.borrow().get(uid) {
            return known.clone();
        }
        let verdict = self.look_up(uid);
        self.verdicts.borrow_mut().insert(uid.to_owned(), verdict.clone());
        verdict
    }

    /// Whether a pod is ending, with its namespace or alone. Its object may be gone before its processes, and with a namespace its
    /// Eggs go before its pods (CVE-2024-7598 is that of NetworkPolicies). Of none before all pods and namespaces are listed.
    #[must_use]
    pub fn is_ending(&self, uid: &str) -> bool {
        if !self.knows_endings() || uid == NODE_UID || is_static(uid) {
            return false;
        }
        let Some(pod) = self.pods.items.get(uid) else { return true };
        let namespace = self.namespaces.items.get(&pod.namespace);
        pod.finished || pod.is_ending || namespace.is_some_and(|namespace| namespace.is_ending)
    }

    /// Whether full lists of pods and namespaces have come.
    #[must_use]
    pub fn knows_endings(&self) -> bool {
        self.pods.complete && self.namespaces.complete
    }

    /// Whether an Egg, of this name for people, still selects a pod, as far as is known here: if no assignment says so any more, the
    /// rest of the news is on its way.
    #[must_use]
    pub fn selects(&self, uid: &str, egg: &str) -> bool {
        self.eggs_of(uid).iter().any(|name| name == egg)
    }

    /// The Eggs that select a pod, by their names for people, as far as is known here.
    #[must_use]
    pub fn eggs_of(&self, uid: &str) -> Vec<String> {
        match self.selection(uid) {
            Verdict::Selected { eggs, .. } => eggs,
            Verdict::Unknown | Verdict::Free => Vec::new(),
        }
    }

    /// Whether Eggs are going to be told.
    #[must_use]
    pub fn is_told_of_eggs(&self) -> bool {
        !self.without_eggs
    }

    /// Whether a pod that is assigned no more is to keep what is in force for it until its processes have ended: it is ending, or some
    /// Egg still selects it.
    #[must_use]
    pub fn until_end(&self, uid: &str) -> bool {
        self.is_ending(uid) || self.pods.complete && !self.eggs_of(uid).is_empty()
    }

    /// Forgets the answers for pods that are not `wanted` any more.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.verdicts.get_mut().retain(|uid, _| wanted(uid));
    }

    fn has_eggs(&self) -> bool {
        self.without_eggs && self.namespaces.complete
            || self.eggs.complete && self.cluster_eggs.complete && self.namespaces.complete
    }

    fn look_up(&self, uid: &str) -> Verdict {
        let Some(pod) = self.pods.items.get(uid) else { return Verdict::Unknown };
        let labels = self.namespaces.items.get(&pod.namespace).map(|namespace| &namespace.labels);
        let prefix = read::egg_prefix(&pod.namespace);
        let own = self.eggs.items.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
        let all = own.chain(&self.cluster_eggs.items);
        let selecting = all.filter(|(_, egg)| egg.selects(pod, labels)).map(|(name, _)| name.clone());
        let eggs: Vec<String> = selecting.collect();
        if !eggs.is_empty() {
            return Verdict::Selected { pod: (pod.namespace.clone(), pod.name.clone()), eggs };
        }
        // A namespace may be told later than its first pods: its watch is another one.
        let turns_on_namespace =
            labels.is_none() && self.cluster_eggs.items.values().any(|egg| egg.may_select(pod));
        if self.has_eggs() && !turns_on_namespace { Verdict::Free } else { Verdict::Unknown }
    }
}

impl Held {
    fn new(egg: NamedEgg, before: Option<&Held>) -> Self {
        let in_force_before = before.and_then(|before| before.in_force.clone());
        let (in_force, asked) = match egg.accepted {
            Some(true) => (egg.selection, None),
            // Of what it was before, only that it is in force is known here: whom it selected may have changed, and seldom has.
            Some(false) if egg.stays_in_force && before.is_none() => (egg.selection, None),
            Some(false) => (in_force_before, None),
            None => (in_force_before, egg.selection),
        };
        Held { name: egg.name, in_force, asked }
    }

    fn selects(&self, pod: &NodePod, namespace: Option<&Labels>) -> bool {
        self.selections().any(|selection| selection.selects(&pod.namespace, namespace, &pod.labels))
    }

    fn may_select(&self, pod: &NodePod) -> bool {
        self.selections().any(|selection| selection.may_select(&pod.namespace, &pod.labels))
    }

    fn selections(&self) -> impl Iterator<Item = &Selection> {
        self.in_force.iter().chain(&self.asked)
    }
}

#[cfg(test)]
mod tests;
