//! News into the index.

use l7egg_crds::EggKind;

use super::Controller;
use crate::index::{Egg, EggKey, Index, NamedNamespace};
use crate::queue::Task;
use crate::watch::{Change, News};

impl Controller {
    pub(super) fn take_in(&mut self, news: News) {
        let (index, listings) = (&mut self.index, &mut self.listings);
        match news {
            News::Egg(change) => {
                if matches!(change, Change::Listing) {
                    index.relist_eggs(EggKind::Egg);
                }
                let keys = || index.egg_keys().filter(|key| key.kind == EggKind::Egg).collect();
                let gone = listings.eggs.gone(&change, |egg| egg.key.clone(), keys);
                self.take_in_egg(change, gone);
            }
            News::ClusterEgg(change) => {
                if matches!(change, Change::Listing) {
                    index.relist_eggs(EggKind::ClusterEgg);
                }
                let keys = || index.egg_keys().filter(|key| key.kind == EggKind::ClusterEgg).collect();
                let gone = listings.cluster_eggs.gone(&change, |egg| egg.key.clone(), keys);
                self.take_in_egg(change, gone);
            }
            News::Pod(change) => {
                let gone = listings.pods.gone(&change, |pod| pod.key(), || index.pod_keys().collect());
                gone.iter().for_each(|key| index.remove_pod(key));
                if let Change::Set(pod) = change {
                    index.apply_pod(pod);
                }
            }
            News::Namespace(change) => {
                let names = || index.namespace_names().collect();
                let gone = listings.namespaces.gone(&change, |named| named.name.clone(), names);
                gone.iter().for_each(|name| index.remove_namespace(name));
                if let Change::Set(NamedNamespace { name, labels, ends }) = change {
                    index.apply_namespace(&name, labels);
                    index.namespace_ends(&name, ends);
                }
            }
            News::Node(change) => {
                let names = || index.node_names().collect();
                let gone = listings.nodes.gone(&change, |node| node.name.clone(), names);
                gone.iter().for_each(|name| index.remove_node(name));
                if let Change::Set(node) = change {
                    index.apply_node(node);
                }
            }
            News::Assignment(change) => {
                if matches!(change, Change::Listing) {
                    index.relist_assignments();
                }
                let keys = || index.observed_keys().collect();
                let gone = listings.assignments.gone(&change, |observed| observed.key.clone(), keys);
                gone.iter().for_each(|key| index.remove_observed(key));
                if let Change::Set(observed) = change {
                    index.apply_observed(observed);
                }
            }
        }
    }

    fn take_in_egg(&mut self, change: Change<Egg, EggKey>, gone: Vec<EggKey>) {
        for key in gone {
            self.index.remove_egg(&key);
            self.eggs.remove(&key);
        }
        if let Change::Present(key) = &change {
            self.index.await_egg(key);
        }
        if let Change::Set(egg) = change {
            let key = egg.key.clone();
            let generation = |index: &Index| index.egg(&key).map(|egg| egg.generation);
            let before = generation(&self.index);
            self.index.apply_egg(egg);
            if self.writes && before != generation(&self.index) {
                // A status that was refused before belonged to another generation.
                self.queue.push(Task::Status(key.clone()), Some(key), true);
            }
        }
    }
}
