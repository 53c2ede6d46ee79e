//! The loop that looks at files and units, and tells the reconciler what is other than before.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use kube::{api::DynamicObject, runtime::watcher::Event};
use l7egg_crds::PodState;
use l7egg_node_agent::{
    cgroup::{CgroupEvent, PodCgroups},
    reconcile::{Input, Outcome},
};
use tokio::sync::watch::Receiver;

use crate::{
    files::Files,
    units::{self, Unit, UnitWatch},
    wanted::{Host, Wanted, wanted},
};

/// Files are looked at this often; units at once when one comes or goes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// And so often while a unit is not yet under its own Eggs.
const SOON: Duration = Duration::from_millis(10);
/// Most units that the host's own Eggs can leave alone (`PODS_CGROUPS` of the kernel's programs).
const APART_MAX: usize = 16;

/// Who looks, where, and whom it is told.
#[derive(Debug)]
pub struct Follow {
    /// Files with Eggs.
    pub files: Files,
    /// The cgroup2 directory of the host.
    pub root: PathBuf,
    /// The host, as nodeSelectors see it.
    pub host: Host,
    /// Tells when units come and go.
    pub watch: UnitWatch,
    /// The reconciler's.
    pub inputs: mpsc::Sender<Input>,
    /// What the reconciler has come to.
    pub outcome: Receiver<Arc<Outcome>>,
}

/// The reconciler has ended.
struct NobodyListens;

/// What was told last.
#[derive(Debug, Default)]
struct Told {
    cgroups: Option<PodCgroups>,
    wanted: Option<Wanted>,
    too_many: bool,
}

/// Looks and tells, until nobody listens.
pub fn follow(mut follow: Follow) {
    let mut told = Told::default();
    loop {
        let look = follow.files.look();
        look.ignored.iter().for_each(|ignored| tracing::info!("{ignored}"));
        look.problems.iter().for_each(|problem| tracing::error!("{problem}"));
        let patience = match units::scan(&follow.root) {
            Ok(units) => match told.tell(&follow, &units) {
                Ok(patience) => patience,
                Err(NobodyListens) => return,
            },
            Err(error) => {
                let root = follow.root.display();
                tracing::error!(%error, %root, "units cannot be found; what is enforced stays");
                LOOK_EVERY
            }
        };
        follow.watch.wait(patience);
    }
}

impl Follow {
    fn send(&self, input: Input) -> Result<(), NobodyListens> {
        self.inputs.send(input).map_err(|_| NobodyListens)
    }
}

impl Told {
    /// Tells what is news; after how long to look again.
    fn tell(&mut self, follow: &Follow, units: &[Unit]) -> Result<Duration, NobodyListens> {
        let wanted = match wanted(follow.files.accepted(), units, &follow.host) {
            Ok(wanted) => wanted,
            Err(error) => {
                tracing::error!(%error, "Eggs cannot be assigned: this is a bug; what is enforced stays");
                return Ok(LOOK_EVERY);
            }
        };
        let mut apart = self.apart(units, &wanted, &follow.outcome.borrow());
        let too_many = apart.len() > APART_MAX;
        if too_many && !self.too_many {
            tracing::error!(
                units = apart.len(),
                "more than {APART_MAX} units have Eggs of their own: what the others send has to be allowed by the host's Eggs too, if there are any"
            );
        }
        self.too_many = too_many;
        apart.truncate(APART_MAX);
        let is_all = too_many || apart.len() == wanted.selected.len();
        let cgroups = PodCgroups {
            pods: units::cgroups(units),
            complete: true,
            parents: apart,
            ..PodCgroups::default()
        };
        if self.cgroups.as_ref() != Some(&cgroups) {
            follow.send(Input::Cgroup(CgroupEvent::Scanned(cgroups.clone())))?;
        }
        if self.wanted.as_ref() != Some(&wanted) {
            follow.send(assignments(Event::Init))?;
            for object in &wanted.assignments {
                follow.send(assignments(Event::InitApply(object.clone())))?;
            }
            follow.send(assignments(Event::InitDone))?;
        }
        (self.cgroups, self.wanted) = (Some(cgroups), Some(wanted));
        Ok(if is_all { LOOK_EVERY } else { SOON })
    }

    /// The cgroups of units that are not the host's concern, as pods are not their node's: those that are under Eggs of their own. One
    /// that has just come is the host's until it is.
    fn apart(&self, units: &[Unit], wanted: &Wanted, outcome: &Outcome) -> Vec<PathBuf> {
        let is_known = |unit: &Unit| {
            let told = self.cgroups.as_ref().and_then(|told| told.pods.get(&unit.uid));
            told.is_some_and(|told| told.id == unit.cgroup.id)
        };
        let is_enforced = |unit: &Unit| {
            let mut states = outcome.state.pods.iter().filter(|pod| pod.uid == unit.uid).map(|pod| pod.state);
            states.any(|state| matches!(state, PodState::Enforced | PodState::Audited))
        };
        let own = units.iter().filter(|unit| wanted.selected.contains(&unit.uid));
        let mut apart: Vec<PathBuf> = own
            .filter(|unit| is_known(unit) && is_enforced(unit))
            .map(|unit| unit.cgroup.path.clone())
            .collect();
        apart.sort();
        apart
    }
}

fn assignments(event: Event<DynamicObject>) -> Input {
    Input::Assignments(Box::new(event))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use l7egg_node_agent::{cgroup::PodCgroup, state::PodStatus};

    use super::*;

    fn unit(name: &str, id: u64) -> Unit {
        let cgroup = PodCgroup { path: name.into(), id };
        let labels = Default::default();
        Unit {
            namespace: "system".into(),
            name: name.into(),
            uid: name.into(),
            labels,
            host_network: true,
            cgroup,
        }
    }

    #[test]
    fn a_unit_is_the_hosts_until_it_is_under_its_own_eggs() {
        let wanted = Wanted { selected: BTreeSet::from(["web".to_owned()]), ..Wanted::default() };
        let state = |state| {
            let pod = serde_json::json!({"uid": "web", "name": "", "eggs": [], "resolvers": [], "state": state, "reason": "", "message": ""});
            let mut outcome = Outcome::default();
            outcome.state.pods = vec![serde_json::from_value::<PodStatus>(pod).unwrap()];
            outcome
        };
        let (units, again) = ([unit("other", 1), unit("web", 2)], [unit("other", 1), unit("web", 3)]);
        let mut told = Told::default();
        assert!(told.apart(&units, &wanted, &state("Enforced")).is_empty(), "not told yet");
        told.cgroups = Some(PodCgroups { pods: units::cgroups(&units), ..PodCgroups::default() });
        assert!(told.apart(&units, &wanted, &state("Failed")).is_empty());
        assert_eq!(told.apart(&units, &wanted, &state("Enforced")), [PathBuf::from("web")]);
        assert!(told.apart(&again, &wanted, &state("Enforced")).is_empty(), "it has started again");
        assert!(told.apart(&units, &Wanted::default(), &state("Enforced")).is_empty());
    }
}
