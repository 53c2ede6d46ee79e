//! What an agent that starts waits for, until it can say of its node's pods what is to become of them. Until then nobody should
//! start pods on the node, which is what the operator's taint sees to.

use super::Reconciler;
use crate::{datapath::Datapath, hold::HoldSettings, kinds::Kind};

impl<D: Datapath> Reconciler<D> {
    /// What is still missing, for people; nothing once all has been there, whatever is lost later.
    pub(super) fn awaited(&self) -> Vec<String> {
        let holds = self.is_told_of_pods && self.holds.settings() != HoldSettings::Never;
        let mut kinds = Vec::from_iter((!self.inventory.is_complete()).then_some(Kind::Assignments));
        let unlisted = self.is_told_of_pods.then(|| self.selected.unlisted()).into_iter().flatten();
        // Whether a pod is in its node's network is asked for even if none is held.
        kinds.extend(unlisted.filter(|kind| holds || *kind == Kind::Pods));
        let lists = kinds.into_iter().map(|kind| match self.unwatched.get(&kind) {
            // A host without Kubernetes.
            _ if !self.is_told_of_pods => {
                "all files with Eggs to be read and accepted; where that lasts, `l7egg check` says why"
                    .to_owned()
            }
            Some(unwatched) => format!("the API server's list of {kind}: {}", unwatched.error),
            None => format!("the API server's list of {kind}"),
        });
        let cgroups = (holds && !self.has_found_pods).then(|| {
            "a look at all pods' cgroups: none was complete, see --cgroup-root if this stays".to_owned()
        });
        lists.chain(cgroups).collect()
    }
}
