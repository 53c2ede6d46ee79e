//! Why a flow of a pod is denied: asked of the oracle, from the Eggs as they are written.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use l7egg_crds::PolicySpec;
use l7egg_policy::{DomainName, Flow, Judgement, ReadSpecs, ResolvConf, Sender, Source, judge_sender};

/// A pod and its Eggs.
#[derive(Clone, Debug)]
pub struct Explainer {
    /// Uid of the pod.
    pub uid: String,
    /// Namespace and name of the pod.
    pub pod: String,
    /// Which of its containers, if some Egg is for certain ones; none for what belongs to none of them.
    pub container: Option<String>,
    /// The Eggs that select it.
    pub eggs: Vec<ExplainedEgg>,
    /// What its resolver is told.
    pub resolv_conf: ResolvConf,
}

/// One of a pod's Eggs.
#[derive(Clone, Debug)]
pub struct ExplainedEgg {
    /// Stands for `spec`: equal revisions, equal specs.
    pub revision: u64,
    /// `Egg shop/checkout`.
    pub name: String,
    /// What it says.
    pub spec: Arc<PolicySpec>,
}

/// Whose a flow is. What their Eggs say is not kept with it: that can be megabytes, and is another tomorrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Uid of the pod.
    pub uid: String,
    /// Namespace and name of the pod.
    pub pod: String,
    /// Which of its containers, as [`Explainer::container`].
    pub container: Option<String>,
}

impl Explainer {
    /// Whose flows these are.
    #[must_use]
    pub fn whose(&self) -> Whose {
        Whose { uid: self.uid.clone(), pod: self.pod.clone(), container: self.container.clone() }
    }

    /// What the Eggs say of a flow of one of the pod's containers to an address that it learned by these names.
    #[must_use]
    pub fn judge<'a>(
        &'a self,
        specs: &ReadSpecs<'a>,
        container: Option<&str>,
        learned: &[DomainName],
        flow: Flow,
    ) -> Judgement {
        let sender = container.map_or(Sender::Nobody, Sender::Container);
        judge_sender(specs, &self.sources(), sender, &self.resolv_conf.servers, learned, flow)
    }

    /// Those of its DNS servers that all its Eggs believe.
    #[must_use]
    pub fn believed(&self) -> BTreeSet<IpAddr> {
        self.resolv_conf.believed(&self.sources()).servers
    }

    fn sources(&self) -> Vec<Source<'_>> {
        self.eggs.iter().map(|egg| Source { name: egg.name.clone(), spec: &egg.spec }).collect()
    }
}

/// By revision: specs are large.
impl PartialEq for Explainer {
    fn eq(&self, other: &Self) -> bool {
        let revisions = |of: &Self| of.eggs.iter().map(|egg| egg.revision).collect::<Vec<_>>();
        self.uid == other.uid
            && self.container == other.container
            && self.resolv_conf == other.resolv_conf
            && revisions(self) == revisions(other)
    }
}
