//! The loop that looks at files, resolv.conf and units, and tells the reconciler what is other than before.

use std::{
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};

use kube::{api::DynamicObject, runtime::watcher::Event};
use l7egg_node_agent::{
    cgroup::{CgroupEvent, PodCgroups},
    reconcile::Input,
    resolv_conf::FollowedResolvConf,
};
use tokio::sync::oneshot;

use crate::{
    files::{Files, SETTLED},
    units::{self, Unit, UnitWatch},
    wanted::{Host, wanted},
};

/// Files are looked at this often; units at once when one comes or goes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who looks, where, and whom it is told.
#[derive(Debug)]
pub struct Follow {
    /// Files with Eggs.
    pub files: Files,
    /// The DNS servers whose answers are believed.
    pub resolvers: FollowedResolvConf,
    /// The cgroup2 directory of the host.
    pub root: PathBuf,
    /// The host, as nodeSelectors see it.
    pub host: Host,
    /// Tells when units come and go.
    pub watch: UnitWatch,
    /// The reconciler's.
    pub inputs: mpsc::Sender<Input>,
    /// Who waits until it is told; whether all of it could be read.
    pub begun: Option<oneshot::Sender<bool>>,
}

/// So long a file that cannot be read keeps others waiting.
const UNREAD_FOR: Duration = Duration::from_secs(5);

/// The reconciler has ended.
struct NobodyListens;

/// What was told last.
#[derive(Debug, Default)]
struct Told {
    cgroups: Option<PodCgroups>,
    wanted: Option<Vec<DynamicObject>>,
    is_whole: bool,
}

/// Looks and tells, until nobody listens.
pub fn follow(mut follow: Follow) {
    let mut told = Told::default();
    let start = Instant::now();
    loop {
        let look = follow.files.look(Instant::now());
        look.ignored.iter().for_each(|ignored| tracing::info!("{ignored}"));
        look.problems.iter().for_each(|problem| tracing::error!("{problem}"));
        if let Some(resolvers) = follow.resolvers.look()
            && follow.send(Input::Resolvers(resolvers)).is_err()
        {
            return;
        }
        match units::scan(&follow.root) {
            Ok(units) => {
                if told.tell(&follow, &units).is_err() {
                    return;
                }
                let is_whole = follow.files.is_whole();
                if (is_whole || start.elapsed() >= UNREAD_FOR)
                    && let Some(begun) = follow.begun.take()
                {
                    let _ = begun.send(is_whole);
                }
            }
            Err(error) => {
                let root = follow.root.display();
                tracing::error!(%error, %root, "units cannot be found; what is enforced stays");
            }
        }
        // What has begun with it waits.
        follow.watch.wait(if follow.files.is_whole() { LOOK_EVERY } else { SETTLED });
    }
}

impl Follow {
    fn send(&self, input: Input) -> Result<(), NobodyListens> {
        self.inputs.send(input).map_err(|_| NobodyListens)
    }
}

impl Told {
    /// Tells what is news.
    fn tell(&mut self, follow: &Follow, units: &[Unit]) -> Result<(), NobodyListens> {
        let wanted = match wanted(follow.files.accepted(), units, &follow.host) {
            Ok(wanted) => wanted,
            Err(error) => {
                tracing::error!(%error, "Eggs cannot be assigned: this is a bug; what is enforced stays");
                return Ok(());
            }
        };
        let cgroups = PodCgroups { pods: units::cgroups(units), complete: true, ..PodCgroups::default() };
        if self.cgroups.as_ref() != Some(&cgroups) {
            follow.send(Input::Cgroup(CgroupEvent::Scanned(cgroups.clone())))?;
        }
        let is_whole = follow.files.is_whole();
        if self.wanted.as_ref() != Some(&wanted) || self.is_whole != is_whole {
            self.tell_wanted(follow, &wanted, is_whole)?;
        }
        *self = Told { cgroups: Some(cgroups), wanted: Some(wanted), is_whole };
        Ok(())
    }

    /// A list says that there is nothing else, so what is in force for others ends. That is not known before all files could be read.
    fn tell_wanted(
        &self,
        follow: &Follow,
        wanted: &[DynamicObject],
        is_whole: bool,
    ) -> Result<(), NobodyListens> {
        if !is_whole {
            return wanted
                .iter()
                .try_for_each(|object| follow.send(assignments(Event::Apply(object.clone()))));
        }
        follow.send(assignments(Event::Init))?;
        for object in wanted {
            follow.send(assignments(Event::InitApply(object.clone())))?;
        }
        follow.send(assignments(Event::InitDone))
    }
}

fn assignments(event: Event<DynamicObject>) -> Input {
    Input::Assignments(Box::new(event))
}
