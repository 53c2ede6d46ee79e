//! Somebody takes away what is enforced, beside the agent.

use std::time::Instant;

use super::Reconciler;
use crate::{
    causes::causes,
    datapath::{Datapath, Mended},
};

impl<D: Datapath> Reconciler<D> {
    /// Puts back what is gone, and says so: it was not enforced for a while.
    pub(super) fn mend(&mut self) {
        let cgroups = &self.cgroups.pods;
        let mended = self.datapath.mend(&|uid| cgroups.get(uid).map(|cgroup| cgroup.path.clone()));
        let failure = match &mended {
            Ok(mended) => mended.failed.iter().next().map(|(uid, error)| format!("pod {uid}: {error}")),
            Err(error) => Some(causes(error)),
        };
        if let Some(error) = &failure {
            self.metrics.failed();
            if self.told_unmended.as_ref() != Some(error) {
                tracing::error!(
                    error,
                    "somebody has taken away what is enforced, and it cannot be put back; tried again"
                );
            }
        }
        self.told_unmended = failure;
        let mended = mended.unwrap_or_default();
        self.tell_overtaken(&mended);
        let Mended { pods, backstops, overtaken: _, maps, failed: _ } = mended;
        for uid in pods {
            self.metrics.failed();
            let (pod, eggs) = self.name(&uid);
            tracing::error!(
                pod,
                uid,
                eggs,
                "somebody has detached the pod's programs, so that nothing was enforced for some seconds: they are attached again"
            );
            // What connected meanwhile is to be looked at.
            self.unsettle(&uid);
        }
        for uid in backstops {
            tracing::error!(uid, "somebody has taken the backstop from the pod's interfaces: it is put back");
        }
        if maps > 0 {
            tracing::error!(maps, "somebody has removed pins of maps: they are put back");
        }
        self.look_at_later(Instant::now());
    }
}
