//! l7egg as its agent runs it: the same code, the same programs.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use l7egg_crds::PolicySpec;
use l7egg_node_agent::datapath::{
    ContainerPolicy, Cover, Datapath, DatapathError, DatapathSettings, EventSource, NODE_UID, ToldNetwork,
    Wanted,
};
use l7egg_node_agent::kernel::Kernel;
use l7egg_node_agent::kernel_events::PERIOD;
use l7egg_policy::{CompiledPolicy, ResolvConf, Source, compile};

use crate::place::Bpffs;
use crate::pod::Pod;

/// Programs and maps of their own.
pub struct Protection {
    /// The agent's side of them.
    pub kernel: Kernel,
    reader: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
    bpffs: Bpffs,
}

impl Protection {
    /// Loads the programs, and reads their events from now on as the agent does.
    pub fn load() -> Result<Self> {
        let bpffs = Bpffs::mount()?;
        let settings = DatapathSettings {
            bpffs: bpffs.path().into(),
            min_ttl: Duration::from_secs(60),
            max_ttl: Duration::from_secs(3600),
            ttl_grace: Duration::ZERO,
            tell_learned: false,
        };
        let mut kernel = Kernel::open(&settings).context("loading the programs")?;
        let ended = Arc::new(AtomicBool::new(false));
        let reader = kernel.events().map(|events| {
            let ended = Arc::clone(&ended);
            thread::spawn(move || read(events, &ended))
        });
        Ok(Self { kernel, reader, ended, bpffs })
    }

    /// Where their pins are.
    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// All that an agent does for a pod with this policy, the backstop included.
    pub fn of(pod: &Pod, policy: &CompiledPolicy) -> Result<Self> {
        Self::with(pod, |kernel| kernel.enforce(pod.uid(), pod.cgroup(), policy))
    }

    /// The same for one container of a pod; what else is in it may only reply.
    pub fn of_container(pod: &Pod, container: &Path, policy: &Arc<CompiledPolicy>) -> Result<Self> {
        let cgroup = std::fs::metadata(container)?.ino();
        let wanted = Wanted::Policy(Arc::clone(policy));
        let container = ContainerPolicy { cgroup, name: "container".to_owned(), wanted };
        let rest = self::policy(&[serde_json::from_value(serde_json::json!({ "egress": [] }))?], &[])?;
        Self::with(pod, |kernel| kernel.divide(pod.uid(), pod.cgroup(), &rest, &[container]))
    }

    /// A firewall for the pod's node, with this policy; no Egg selects the pod.
    pub fn of_node(pod: &Pod, policy: &CompiledPolicy) -> Result<Self> {
        let protect = || -> Result<Self> {
            let mut protection = Self::load()?;
            protection.kernel.leave_alone(&[pod.pods_cgroup().to_owned()])?;
            protection.kernel.enforce(NODE_UID, pod.node_cgroup(), policy).context("enforcing the policy")?;
            Ok(protection)
        };
        pod.host()?.run(protect)?
    }

    /// The gate, which has admitted the pod; no Egg selects it.
    pub fn of_strict_node(pod: &Pod) -> Result<Self> {
        let admitted = std::fs::metadata(pod.cgroup())?.ino();
        let protect = || -> Result<Self> {
            let mut protection = Self::load()?;
            protection.kernel.close_gate(&[pod.pods_cgroup().to_owned()], &[admitted])?;
            Ok(protection)
        };
        pod.host()?.run(protect)?
    }

    fn with(
        pod: &Pod,
        enforce: impl FnOnce(&mut Kernel) -> Result<(), DatapathError> + Send,
    ) -> Result<Self> {
        // By its processes the pod's network is found.
        let _process = pod.idle()?;
        let protect = || -> Result<Self> {
            let mut protection = Self::load()?;
            enforce(&mut protection.kernel).context("enforcing the policy")?;
            let cover = protection
                .kernel
                .cover(pod.uid(), pod.cgroup(), &ToldNetwork::default())
                .context("attaching the backstop")?;
            ensure!(cover == Cover::Whole, "the backstop: {cover:?}");
            Ok(protection)
        };
        pod.host()?.run(protect)?
    }
}

impl Drop for Protection {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Compiles the specs of Eggs for pods with these DNS servers.
pub fn policy(specs: &[PolicySpec], resolvers: &[Ipv4Addr]) -> Result<CompiledPolicy> {
    let sources: Vec<Source<'_>> =
        specs.iter().map(|spec| Source { name: "Egg bench/bench".to_owned(), spec }).collect();
    let resolv_conf = ResolvConf::of_servers(resolvers.iter().copied().map(IpAddr::V4));
    compile(&sources, &resolv_conf).context("compiling the policy")
}

fn read(mut events: Box<dyn EventSource>, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        while events.next().is_some() {}
        thread::sleep(PERIOD);
    }
}
