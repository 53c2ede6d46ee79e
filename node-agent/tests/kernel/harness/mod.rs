//! What every test needs: a pod and a world in network namespaces of their own, with real cgroups.

mod bpffs;
mod held;
mod ip;
mod node;
mod pod;
mod policy;
mod process;
mod recorder;
mod settle;
mod socket_balancer;
pub mod systemd;
pub mod traffic;
mod verdict_program;
mod versions;
mod wires;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
pub use bpffs::Bpffs;
#[allow(unused_imports)] // Not every suite holds connections.
pub use held::{Held, is_without_a_pause};
use l7egg_crds::PolicySpec;
use l7egg_ebpf_common::abi::{
    ABI_VERSION, Address, AddressKey, Flow, FlowKey, Learned, LearnedKey, Name, NameTail, Network, Shares,
};
use l7egg_node_agent::datapath::{
    ContainerPolicy, Cover, Datapath, DatapathError, DatapathSettings, Mended, NODE_UID, ToldNetwork, Wanted,
};
use l7egg_node_agent::kernel::Kernel;
use l7egg_node_agent::netns::SpecNetwork;
use l7egg_node_agent::netns::tc::{self, Direction, Target};
use l7egg_policy::{CompiledPolicy, ResolvConf, Source, compile};
#[allow(unused_imports)] // The kernel tests' own.
pub use node::Beyond;
pub use pod::{Link, POD4, POD6, Pod, cgroup2_root, remove_within};
pub use policy::{policy, resolv_conf, together};
#[allow(unused_imports)] // Not every suite talks with programs.
pub use process::Said;
pub use recorder::Recorder;
pub use socket_balancer::SocketBalancer;
pub use verdict_program::VerdictProgram;

/// The resolvers of every pod here: the world's DNS server.
pub const RESOLVERS: [&str; 2] = ["198.18.0.53", "2001:db8:18::53"];

/// A kernel of its own and a pod.
pub struct Setup {
    /// Programs and maps.
    pub kernel: Kernel,
    /// The pod.
    pub pod: Pod,
    bpffs: Bpffs,
}

/// What the programs believe of the pod's network.
#[derive(Debug, PartialEq)]
pub struct Believed {
    /// Which one it is; without what of it has the backstop.
    pub network: Network,
    /// Its addresses, as text.
    pub addresses: BTreeSet<String>,
    /// The pins of the backstop.
    pub pins: BTreeSet<PathBuf>,
}

impl Setup {
    /// A pod that no policy is enforced for.
    pub fn new() -> Self {
        Self::with_link(Link::Direct)
    }

    /// The same with its world elsewhere.
    pub fn with_link(link: Link) -> Self {
        let (bpffs, pod) = (Bpffs::new(), Pod::with_link(link));
        let kernel = on_host(&pod, || Kernel::open(&settings(&bpffs))).unwrap_or_else(fail);
        Self { kernel, pod, bpffs }
    }

    /// A pod with this policy in force, and the backstop on its node.
    pub fn on_node(yaml: &str) -> Self {
        let mut setup = Self::with_link(Link::ByNode);
        setup.enforce(yaml);
        setup
    }

    /// A pod that is held, and the backstop on its node.
    pub fn on_held_node() -> Self {
        let mut setup = Self::with_link(Link::ByNode);
        setup.hold();
        setup
    }

    /// A pod with this policy in force.
    pub fn with_policy(yaml: &str) -> Self {
        let mut setup = Self::new();
        setup.enforce(yaml);
        setup
    }

    /// Enforces a policy for the pod.
    pub fn enforce(&mut self, yaml: &str) {
        self.enforce_compiled(&policy(yaml));
    }

    /// The same for a pod that asks another resolver.
    pub fn enforce_asking(&mut self, yaml: &str, resolver: &str) {
        let spec: PolicySpec = serde_yaml::from_str(yaml).expect("a policy in the test");
        let conf = ResolvConf::of_servers([resolver.parse().expect("an address")]);
        let source = Source { name: "Egg test/test".into(), spec: &spec };
        self.enforce_compiled(&compile(&[source], &conf).expect("a valid policy"));
    }

    /// The same for one that is compiled.
    pub fn enforce_compiled(&mut self, policy: &CompiledPolicy) {
        if self.pod.link() == Link::IsNode {
            self.kernel.in_host_network(self.pod.uid());
        }
        self.kernel.enforce(self.pod.uid(), self.pod.cgroup(), policy).unwrap_or_else(fail);
        self.cover();
    }

    /// Holds the pod.
    pub fn hold(&mut self) {
        self.kernel.hold(self.pod.uid(), self.pod.cgroup()).unwrap_or_else(fail);
        self.cover();
    }

    /// Enforces policies for containers of the pod, each with its name, in the place of what there was; a container without one is
    /// free, and what is not named is nobody's.
    pub fn divide(&mut self, given: &[(&str, Option<&str>)]) {
        let one = |(name, yaml): &(&str, Option<&str>)| ContainerPolicy {
            cgroup: std::fs::metadata(self.pod.container(name)).expect("a cgroup").ino(),
            name: (*name).to_owned(),
            wanted: yaml.map_or(Wanted::Free, |yaml| Wanted::Policy(Arc::new(policy(yaml)))),
        };
        let containers: Vec<ContainerPolicy> = given.iter().map(one).collect();
        let is_refusing =
            |(_, yaml): &(&str, Option<&str>)| yaml.is_some_and(|yaml| yaml.contains("refuseUnmatched"));
        let refuse = given.iter().any(is_refusing);
        let rest = policy(&format!("{{dns: {{refuseUnmatched: {refuse}}}, egress: []}}"));
        self.kernel.divide(self.pod.uid(), self.pod.cgroup(), &rest, &containers).unwrap_or_else(fail);
        self.cover();
    }

    fn cover(&mut self) {
        let (kernel, pod) = (&mut self.kernel, &self.pod);
        if pod.link() != Link::Direct {
            let cover = on_host(pod, || kernel.cover(pod.uid(), pod.cgroup(), &own()));
            let expected = match pod.link() {
                Link::IsNode => Cover::Host,
                Link::OnTop(_) => Cover::Part { uncovered: vec!["eth0".into()] },
                Link::ByNode | Link::Direct => Cover::Whole,
            };
            assert_eq!(cover.unwrap_or_else(fail), expected);
        }
    }

    /// Looks for the pod's network, as every pass of the agent does.
    pub fn try_cover(&mut self) -> Cover {
        self.try_cover_told(&own())
    }

    /// The same, where this is told of it.
    pub fn try_cover_told(&mut self, told: &ToldNetwork) -> Cover {
        let (kernel, pod) = (&mut self.kernel, &self.pod);
        on_host(pod, || kernel.cover(pod.uid(), pod.cgroup(), told)).unwrap_or_else(fail)
    }

    /// Whether the pod's processes are in its node's network.
    pub fn is_on_host_network(&self) -> bool {
        on_host(&self.pod, || self.kernel.is_on_host_network(self.pod.cgroup()))
    }

    /// What the agent looks at every other second.
    pub fn mend(&mut self) -> Mended {
        let (kernel, pod) = (&mut self.kernel, &self.pod);
        on_host(pod, || kernel.mend(&|_| Some(pod.cgroup().to_owned()))).unwrap_or_else(fail)
    }

    /// What the agent looks at when the kernel tells of the pod's interface.
    #[allow(dead_code)] // The kernel tests' own.
    pub fn mend_backstops(&mut self, uids: &BTreeSet<String>) -> Mended {
        let (kernel, pod) = (&mut self.kernel, &self.pod);
        on_host(pod, || kernel.mend_backstops(uids))
    }

    /// Where its programs and maps are pinned.
    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// Enforces a policy for the pod's node, of which the pod's namespace is the network: for all that is in its cgroup but
    /// not in a pod's.
    pub fn enforce_node(&mut self, cgroup: &Path, policy: &CompiledPolicy) {
        let kubepods = self.pod.cgroup().parent().expect("a parent").to_owned();
        let kernel = &mut self.kernel;
        kernel.leave_alone(&[kubepods]).unwrap_or_else(fail);
        kernel.enforce(NODE_UID, cgroup, policy).unwrap_or_else(fail);
        let cover = on_host(&self.pod, || kernel.cover(NODE_UID, cgroup, &ToldNetwork::default()))
            .unwrap_or_else(fail);
        assert_eq!(cover, Cover::Host);
    }

    /// Lets the pod go.
    pub fn release(&mut self) {
        let (kernel, pod) = (&mut self.kernel, &self.pod);
        on_host(pod, || kernel.release(pod.uid())).unwrap_or_else(fail);
    }

    /// What the programs believe of the pod's network.
    pub fn believed(&self) -> Believed {
        let subject = self.subject();
        let data = MapData::from_pin(self.pins("maps").join("NETWORKS")).expect("the pin");
        let map = Map::from_map_data(data).expect("the map");
        let networks: Array<_, Network> = Array::try_from(map).expect("an array");
        let network = Network { covered: 0, ..networks.get(&subject, 0).expect("an entry") };
        let keys = self.addresses();
        let keys = keys.keys().map(|key| key.expect("a key")).filter(|key| key.subject == subject);
        let addresses = keys.map(|key| format!("{:?}", key.address)).collect();
        let pins = self.pins(&format!("interfaces/{}", self.pod.uid()));
        let programs = std::fs::read_dir(pins).into_iter().flatten().flatten();
        let pins = programs.flat_map(|program| std::fs::read_dir(program.path()).expect("pins"));
        Believed { network, addresses, pins: pins.map(|pin| pin.expect("a pin").path()).collect() }
    }

    /// The pod's subject id.
    pub fn subject(&self) -> u32 {
        let enforced = self.kernel.enforced().expect("what is enforced");
        enforced.iter().find(|pod| pod.uid == self.pod.uid()).expect("the pod").subject
    }

    /// The map `ADDRESSES`.
    pub fn addresses(&self) -> HashMap<MapData, AddressKey, u8> {
        let data = MapData::from_pin(self.pins("maps").join("ADDRESSES")).expect("the pin");
        HashMap::try_from(Map::from_map_data(data).expect("the map")).expect("a hash map")
    }

    /// The addresses that the pod has learned by some name.
    pub fn learned(&self) -> BTreeSet<Address> {
        let data = MapData::from_pin(self.pins("maps").join("LEARNED")).expect("the pin");
        let map = Map::from_map_data(data).expect("the map");
        let learned: HashMap<_, LearnedKey, Learned> = HashMap::try_from(map).expect("a hash map");
        let keys = learned.keys().map(|key| key.expect("a key"));
        keys.filter(|key| key.subject == self.subject()).map(|key| key.address).collect()
    }

    /// The map `NAMES`, to change what is remembered.
    pub fn names(&self) -> HashMap<MapData, u64, Name> {
        self.map("NAMES")
    }

    /// What subjects have of the tables that all share.
    pub fn shares(&self) -> Array<MapData, Shares> {
        let map = MapData::from_pin(self.pins("maps/SHARES")).expect("the pin");
        Array::try_from(Map::from_map_data(map).expect("the map")).expect("an array")
    }

    /// The map `FLOWS`.
    pub fn flows(&self) -> HashMap<MapData, FlowKey, Flow> {
        let data = MapData::from_pin(self.pins("maps").join("FLOWS")).expect("the pin");
        HashMap::try_from(Map::from_map_data(data).expect("the map")).expect("a hash map")
    }

    /// The map `NAME_TAILS`.
    pub fn name_tails(&self) -> HashMap<MapData, u64, NameTail> {
        self.map("NAME_TAILS")
    }

    fn map<V: aya::Pod>(&self, name: &str) -> HashMap<MapData, u64, V> {
        let data = MapData::from_pin(self.pins("maps").join(name)).expect("the pin");
        HashMap::try_from(Map::from_map_data(data).expect("the map")).expect("a hash map")
    }

    /// The last id that a policy was given.
    pub fn last_policy(&self) -> u32 {
        let data = MapData::from_pin(self.pins("maps").join("POLICIES")).expect("the pin");
        let map = Map::from_map_data(data).expect("the map");
        let policies: HashMap<_, u32, [u8; 32]> = HashMap::try_from(map).expect("a hash map");
        policies.get(&0, 0).map_or(0, |[a, b, c, d, ..]| u32::from_le_bytes([a, b, c, d]))
    }

    /// Where the pins of this kind are.
    pub fn pins(&self, kind: &str) -> PathBuf {
        self.bpffs.path().join(format!("l7egg/v{ABI_VERSION}/{kind}"))
    }

    /// What `l7egg-node-agent detach` does.
    pub fn remove_everything(&self) {
        let remove = || l7egg_node_agent::kernel::remove_everything(self.bpffs.path());
        on_host(&self.pod, remove).unwrap_or_else(fail);
    }

    /// Enforces a policy for the pod, whose interfaces are not looked at yet.
    pub fn enforce_uncovered(&mut self, yaml: &str) {
        let (kernel, pod) = (&mut self.kernel, &self.pod);
        on_host(pod, || kernel.enforce(pod.uid(), pod.cgroup(), &policy(yaml))).unwrap_or_else(fail);
    }

    /// What of the backstop is on the node's side of the pod's interface: the programs that run, and the qdisc that they may
    /// need for that.
    pub fn backstop(&self) -> Vec<String> {
        let node = format!("{}n", self.pod.uid());
        let show = |arguments: &[&str]| {
            let output =
                Command::new("tc").args(["-n", &node]).args(arguments).output().expect("tc (iproute2)");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let mut found = Vec::new();
        if show(&["qdisc", "show", "dev", "pod"]).contains("clsact") {
            found.push("clsact".to_owned());
        }
        let netns = self.pod.node_netns();
        for (name, direction) in [("entering", Direction::Egress), ("leaving", Direction::Ingress)] {
            let filters = show(&["filter", "show", "dev", "pod", &direction.to_string()]);
            let pins = self.pins(&format!("interfaces/{}/{name}", self.pod.uid()));
            let by_link = netns.run(|| {
                // SAFETY: a valid C string.
                let interface = unsafe { libc::if_nametoindex(c"pod".as_ptr()) };
                pins.exists()
                    && tc::is_attached(name, direction, Target::new(interface, &netns, &pins))
                        .expect("an answer")
            });
            let many = filters.matches(&format!("{name} direct-action")).count();
            found.extend(std::iter::repeat_n(name.to_owned(), many.max(by_link.expect("the node").into())));
        }
        found
    }

    /// Another agent takes over, as after a restart.
    pub fn restart_agent(&mut self) {
        self.kernel = on_host(&self.pod, || Kernel::open(&settings(&self.bpffs))).unwrap_or_else(fail);
    }
}

/// What is told of a pod that is to have a network of its own.
fn own() -> ToldNetwork {
    ToldNetwork { spec: SpecNetwork::Own, ..ToldNetwork::default() }
}

/// Works in the network namespace of the pod's node, if there is one.
fn on_host<T: Send>(pod: &Pod, work: impl FnOnce() -> T + Send) -> T {
    match pod.link() {
        Link::Direct => work(),
        Link::IsNode => pod.netns().run(work).expect("to work in the node's namespace"),
        Link::ByNode | Link::OnTop(_) => pod.node_netns().run(work).expect("to work in the node's namespace"),
    }
}

/// Settings with short TTLs.
pub fn settings(bpffs: &Bpffs) -> DatapathSettings {
    settings_in(bpffs.path())
}

/// The same for a bpffs that another process has mounted.
pub fn settings_in(bpffs: &Path) -> DatapathSettings {
    DatapathSettings {
        bpffs: bpffs.into(),
        min_ttl: Duration::from_secs(2),
        max_ttl: Duration::from_secs(3600),
        ttl_grace: Duration::ZERO,
        tell_learned: true,
    }
}

/// Fails with an error and its causes.
pub fn fail<T>(error: DatapathError) -> T {
    panic!("{:#}", anyhow::Error::from(error))
}

/// Whether this machine is emulated: a process takes a tenth of a second to start there, and all else its time, too.
pub fn is_emulated() -> bool {
    Path::new("/run/vmrun").exists()
}

/// So many seconds, or several times as many where the machine is emulated.
pub fn seconds(count: u32) -> u32 {
    if is_emulated() { 3 * count } else { count }
}

/// A number that no other test of this machine has at the same time.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A binary of the e2e crate, which is built beside this test.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let path = test.ancestors().nth(2).expect("target/<profile>/deps").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build -p l7egg-e2e`", path.display());
    path
}

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; these tests need root and iproute2"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}; these tests need root",
        String::from_utf8_lossy(&output.stderr)
    );
}
