//! What runs wherever Eggs are enforced, whoever says what is wanted: the reconciler, the kernel's events, the admin endpoint.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::bail;
use l7egg_daemon::{files, panics};
use prometheus_client::registry::Registry;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{
    admin::{self, Admin, AdminPlaces},
    datapath::{Datapath, DatapathSettings},
    flow_log::FlowLog,
    hold::HoldSettings,
    inventory::Inventory,
    kernel::{self, Kernel},
    kernel_events,
    lock::{Lock, LockError},
    metrics::{Metrics, OutcomeCollector},
    preflight::{Node, bandwidth_limits},
    reconcile::{Input, Outcome, Reconciler},
    resolvers::NodeResolvers,
    settings::OnExit,
};

/// How often it is seen to that no other agent starts.
const LOOK_AT_LOCK_EVERY: Duration = Duration::from_secs(2);

/// What the process needs of itself, whatever it then enforces.
pub fn begin() {
    files::allow_many();
    panics::end_the_process("and what is enforced stays; whoever started it is to start it again");
}

/// Checks that the node can do what is needed.
///
/// # Errors
/// It cannot; each thing that is missing is logged, with what to do about it.
pub fn preflight(node: &Node) -> anyhow::Result<()> {
    let missing = node.missing();
    missing.iter().for_each(|missing| tracing::error!("{missing}"));
    if !missing.is_empty() {
        let what: Vec<&str> = missing.iter().map(|missing| missing.what.as_str()).collect();
        bail!("this node cannot enforce Eggs: {}", what.join("; "));
    }
    match bandwidth_limits() {
        Ok(means) => tracing::info!("bandwidth limits: {means}"),
        Err(missing) => tracing::warn!("{missing}"),
    }
    Ok(())
}

/// The signals that end a program in order.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on an end is an orderly one.
    ///
    /// # Errors
    /// They cannot be had, which no sound system shows.
    pub fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// What is there before anything is wanted.
pub struct Engine {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    flow_log: Arc<FlowLog>,
    publish: watch::Sender<Arc<Outcome>>,
    outcome: watch::Receiver<Arc<Outcome>>,
    lock: Lock,
}

impl Engine {
    /// Opens the kernel, with what an earlier agent has left in it, and reads its events from now on.
    ///
    /// # Errors
    /// Another agent is at work, which is then left alone; the programs cannot be loaded, or what is pinned
    /// cannot be opened.
    pub async fn open(settings: &DatapathSettings) -> anyhow::Result<(Self, Kernel)> {
        let lock = Lock::take(&settings.bpffs).await?;
        let mut kernel = Kernel::open(settings)?;
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let flow_log = Arc::<FlowLog>::default();
        let (publish, outcome) = watch::channel(Arc::<Outcome>::default());
        registry.register_collector(Box::new(OutcomeCollector(outcome.clone())));
        if let Some(events) = kernel.events() {
            let (metrics, flow_log, outcome) = (Arc::clone(&metrics), Arc::clone(&flow_log), outcome.clone());
            thread::Builder::new()
                .name("events".into())
                .spawn(move || kernel_events::run(events, &metrics, &flow_log, outcome))?;
        }
        let registry = Arc::new(registry);
        Ok((Engine { registry, metrics, flow_log, publish, outcome, lock }, kernel))
    }

    /// What is known after each pass of the reconciler.
    #[must_use]
    pub fn outcome(&self) -> watch::Receiver<Arc<Outcome>> {
        self.outcome.clone()
    }

    /// A reconciler for what is opened.
    #[must_use]
    pub fn reconciler(
        &self,
        kernel: Kernel,
        inventory: Inventory,
        resolvers: NodeResolvers,
        hold: HoldSettings,
    ) -> Reconciler<Kernel> {
        Reconciler::new(kernel, inventory, resolvers, hold, Arc::clone(&self.metrics))
    }

    /// Answers at the admin endpoint, and enforces what comes in, until a signal says to stop. The pass under way is finished, so that
    /// no pod is left half changed.
    ///
    /// # Errors
    /// The reconciler ended by itself, or what is to be detached cannot be.
    pub async fn run(
        self,
        reconciler: Reconciler<Kernel>,
        (inputs, received): (mpsc::Sender<Input>, mpsc::Receiver<Input>),
        signals: Signals,
        admin_places: AdminPlaces,
        end: &End<'_>,
    ) -> anyhow::Result<()> {
        let Engine { registry, metrics, flow_log, publish, outcome, mut lock } = self;
        let admin = Admin { registry, metrics, outcome, flow_log, explaining: Arc::default() };
        tokio::spawn(admin::serve(admin, admin_places));
        let (ended, end_of_loop) = oneshot::channel();
        thread::Builder::new().name("reconciler".into()).spawn(move || {
            reconciler.run(&received, &publish);
            let _ = ended.send(());
        })?;
        let Signals { mut terminate, mut interrupt } = signals;
        tokio::pin!(end_of_loop);
        let mut told_lock = false;
        let mut look_at_lock = tokio::time::interval(LOOK_AT_LOCK_EVERY);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = &mut end_of_loop => bail!("the reconciler ended: this is a bug; what is enforced stays"),
                // Somebody may have removed it with all else that is in the bpffs, and then another one have started.
                _ = look_at_lock.tick() => match lock.renew() {
                    Ok(()) => told_lock = false,
                    Err(error @ LockError::Taken { .. }) => return Err(error.into()),
                    Err(error) if !told_lock => {
                        told_lock = true;
                        tracing::error!(%error, "what is enforced cannot be kept from other agents; tried again");
                    }
                    Err(_) => {}
                },
            }
        }
        let _ = inputs.send(Input::Stop);
        let _ = end_of_loop.await;
        if end.on_exit == OnExit::Detach {
            kernel::remove_everything(end.bpffs)?;
            tracing::info!("told to stop: nothing is enforced any more");
        } else {
            tracing::info!("told to stop: what is enforced stays");
        }
        Ok(())
    }
}

/// What becomes of enforcement at the end.
pub struct End<'a> {
    /// Whether it stays.
    pub on_exit: OnExit,
    /// Where bpffs is mounted.
    pub bpffs: &'a std::path::Path,
}
