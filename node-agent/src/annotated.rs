//! Pods that no Egg selects, and whose annotation limits their bandwidth all the same. They have no rules: whom they reach is
//! not looked at.

use std::collections::BTreeMap;

use l7egg_crds::AssignedPod;

use crate::{
    desired::{Desired, Limits, limits_of},
    selected::Selected,
};

/// One of them.
#[derive(Clone, Debug)]
pub struct AnnotatedPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What its annotation says.
    pub limits: Limits,
}

/// Those of this node's pods, by uid. `None` while it is not known which pods there are, or which of them Eggs select: an Egg's
/// limit goes before the annotation.
#[must_use]
pub fn annotated(selected: &Selected, desired: &Desired) -> Option<BTreeMap<String, AnnotatedPod>> {
    let pods = selected.pods()?;
    if !desired.knows_all_pods {
        return None;
    }
    let annotated = pods.filter(|pod| pod.egress_bandwidth.is_some() && !pod.finished);
    let alone = annotated.filter(|pod| !desired.pods.contains_key(&pod.uid));
    let limited = alone.map(|pod| {
        let limits = limits_of(&AssignedPod {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            host_network: pod.host_network,
            egress_bandwidth: pod.egress_bandwidth.clone(),
            ..AssignedPod::default()
        });
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        (pod.uid.clone(), AnnotatedPod { namespace, name, limits })
    });
    Some(limited.collect())
}
