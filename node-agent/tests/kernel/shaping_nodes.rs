//! A rate that the pods of two nodes share: divided by the operator's own code, enforced by two agents' kernels,
//! used by real connections.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kube::runtime::watcher::Event;
use l7egg_crds::AssignedPod;
use l7egg_node_agent::datapath::Datapath;
use l7egg_node_agent::desired::desired;
use l7egg_node_agent::inventory::Inventory;
use l7egg_node_agent::kernel::Kernel;
use l7egg_node_agent::netns::Netns;
use l7egg_node_agent::policies::PolicyCache;
use l7egg_node_agent::preflight::bandwidth_limits;
use l7egg_operator::index::{EggKey, Index, Labels, ObjectKey, Pod};
use l7egg_operator::naming::assignment_key;
use l7egg_operator::{read, write};
use l7egg_policy::ResolvConf;
use serde_json::json;

use crate::harness::traffic::{self, FRAME, PAYLOAD};
use crate::harness::{Bpffs, cgroup2_root, fail, remove_within, run, settings, unique};

const RATE: f64 = 50e6;
/// Pods of each node.
const PODS: [(&str, usize); 2] = [("node1", 12), ("node2", 8)];
/// The first two seconds, in which twenty connections find their pace, do not count.
const WARMUP: Duration = Duration::from_secs(2);
const TIME: Duration = Duration::from_secs(8);
/// The best of so many counts.
const TRIES: usize = 6;

/// What the operator knows, the nodes, and where their pods send to.
struct Cluster {
    index: Index,
    egg: EggKey,
    nodes: Vec<Node>,
    sink: String,
}

/// An agent's side of a node.
struct Node {
    name: &'static str,
    kernel: Kernel,
    pods: Vec<NodePod>,
    _bpffs: Bpffs,
}

struct NodePod {
    /// Name, uid, and name of its network namespace.
    name: String,
    cgroup: PathBuf,
    process: Child,
    /// Address of the other end of its wire.
    gateway: String,
}

impl Cluster {
    fn new() -> Self {
        let egg = json!({
            "apiVersion": "l7egg.dev/v1alpha1", "kind": "Egg",
            "metadata": {"namespace": "shop", "name": "all", "uid": "egg", "generation": 1},
            "spec": {
                "podSelector": {},
                "egress": [{"to": [{"cidr": "0.0.0.0/0"}]}],
                "shaping": {"egress": {"rate": "50M", "scope": "Namespace"}},
            },
        });
        let egg = read::egg(&serde_json::from_value(egg).expect("an object")).expect("an Egg");
        let mut cluster = Self {
            index: Index::default(),
            egg: egg.key.clone(),
            nodes: Vec::new(),
            sink: format!("l7k-{}s", unique()),
        };
        cluster.index.apply_egg(egg);
        run("ip", &["netns", "add", &cluster.sink]);
        for (name, pods) in PODS {
            let bpffs = Bpffs::new();
            let kernel = Kernel::open(&settings(&bpffs)).unwrap_or_else(fail);
            cluster.nodes.push(Node { name, kernel, pods: Vec::new(), _bpffs: bpffs });
            for _ in 0..pods {
                cluster.add_pod();
            }
        }
        cluster.index.settle();
        cluster
    }

    /// Adds a pod to the last node.
    fn add_pod(&mut self) {
        let number = self.nodes.iter().map(|node| node.pods.len()).sum::<usize>() + 1;
        let node = self.nodes.last_mut().expect("a node");
        let pod = NodePod::new(number, &self.sink);
        let (namespace, name) = ("shop".to_owned(), pod.name.clone());
        let assigned = AssignedPod { namespace, uid: name.clone(), name, ..AssignedPod::default() };
        self.index.apply_pod(Pod { labels: Labels::default(), node: node.name.into(), assigned });
        node.pods.push(pod);
    }

    /// From what the operator wants to what the kernels do, as operator and agents do it.
    fn reconcile(&mut self) {
        for node in &mut self.nodes {
            let mut inventory = Inventory::new(false);
            inventory.apply(Event::Init);
            let key = assignment_key(&self.egg, node.name);
            if let Some(assignment) = self.index.desired(&key) {
                let object = write::object(&key, &assignment);
                inventory.apply(Event::InitApply(serde_json::from_value(object).expect("an object")));
            }
            inventory.apply(Event::InitDone);
            let desired =
                desired(&inventory, &|_| ResolvConf::default(), &|_, _| false, &mut PolicyCache::default());
            for pod in &node.pods {
                let Some(desired) = desired.pods.get(&pod.name) else { continue };
                let caps = desired.limits.caps.as_ref().expect("caps");
                node.kernel.shape(&pod.name, &pod.cgroup, caps).unwrap_or_else(fail);
            }
        }
    }

    /// The same where all of the rate is used, and no more, in the best of some tries: a processor that others keep busy takes from what
    /// is sent, and has receivers read after the warm-up what was sent before.
    fn send_all(&self, who: &str) -> Vec<Vec<f64>> {
        for left in (0..TRIES).rev() {
            let nodes = self.send();
            let sums: Vec<f64> = nodes.iter().map(|pods| pods.iter().sum()).collect();
            let total = sums.iter().sum::<f64>() / RATE;
            println!("{who}: {total:.3} of the rate, by node {sums:.0?}");
            if (0.95..1.01).contains(&total) {
                return nodes;
            }
            assert!(left > 0, "{total} of the rate");
        }
        unreachable!("the last try returns or fails")
    }

    /// One connection of every pod sends for some time; the bits per second of each, by node.
    fn send(&self) -> Vec<Vec<f64>> {
        let stop = &AtomicBool::new(false);
        let sink = Netns::open(&PathBuf::from("/run/netns").join(&self.sink)).expect("the sink");
        let connect = |pod: &NodePod| {
            let listener = sink.run(|| TcpListener::bind((pod.gateway.as_str(), 0)));
            let listener = listener.expect("the sink").expect("a listener");
            let port = listener.local_addr().expect("its address").port();
            let sender = pod.netns().run(|| TcpStream::connect((pod.gateway.as_str(), port)));
            (sender.expect("the pod").expect("a connection"), listener.accept().expect("a connection").0)
        };
        let connections: Vec<Vec<_>> =
            self.nodes.iter().map(|node| node.pods.iter().map(connect).collect()).collect();
        let start = Instant::now();
        thread::scope(|scope| {
            let mut receivers = Vec::new();
            for node in connections {
                let mut of_node = Vec::new();
                for (sender, receiver) in node {
                    of_node.push(scope.spawn(move || traffic::receive(receiver, start)));
                    scope.spawn(move || traffic::send(sender, stop));
                }
                receivers.push(of_node);
            }
            thread::sleep((start + WARMUP + TIME).saturating_duration_since(Instant::now()));
            stop.store(true, Ordering::Relaxed);
            let rate = |arrived: Vec<(Duration, u64)>| {
                let within = arrived.iter().filter(|(at, _)| (WARMUP..WARMUP + TIME).contains(at));
                let bytes: u64 = within.map(|(_, bytes)| bytes).sum();
                (bytes * FRAME / PAYLOAD) as f64 * 8.0 / TIME.as_secs_f64()
            };
            let of_node = |node: Vec<thread::ScopedJoinHandle<'_, _>>| {
                node.into_iter().map(|receiver| rate(receiver.join().expect("no panic"))).collect()
            };
            receivers.into_iter().map(of_node).collect()
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        let _ = Command::new("ip").args(["netns", "del", &self.sink]).status();
    }
}

impl NodePod {
    fn new(number: usize, sink: &str) -> Self {
        let name = format!("l7k-{}n", unique());
        let (pod, gateway) = (format!("10.78.{number}.2/24"), format!("10.78.{number}.1"));
        run("ip", &["netns", "add", &name]);
        let peer = format!("pod{number}");
        run(
            "ip",
            &["-n", &name, "link", "add", "eth0", "type", "veth", "peer", "name", &peer, "netns", sink],
        );
        for (ns, interface, address) in [(&*name, "eth0", &pod), (sink, &peer, &format!("{gateway}/24"))] {
            run("ip", &["-n", ns, "addr", "add", address, "dev", interface]);
            run("ip", &["-n", ns, "link", "set", interface, "up"]);
        }
        let cgroup = cgroup2_root().join(format!("{name}/kubepods/pod{name}"));
        fs::create_dir_all(&cgroup).expect("a cgroup");
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec ip netns exec \"$@\""]);
        command.arg(cgroup.join("cgroup.procs")).arg(&name).args(["sleep", "600"]);
        let process = command.spawn().expect("a process");
        let comm = format!("/proc/{}/comm", process.id());
        while fs::read_to_string(&comm).is_ok_and(|comm| comm.trim() != "sleep") {
            thread::sleep(Duration::from_millis(10));
        }
        Self { name, cgroup, process, gateway }
    }

    fn netns(&self) -> Netns {
        Netns::open(&PathBuf::from("/run/netns").join(&self.name)).expect("the pod's namespace")
    }
}

impl Drop for NodePod {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        remove_within(self.cgroup.ancestors().nth(2).expect("the node's cgroup"), Duration::from_secs(30));
    }
}

#[test]
fn a_rate_that_the_pods_of_two_nodes_share_is_used_whole_and_divided_anew() {
    if let Err(missing) = bandwidth_limits() {
        println!("skipped: {missing}");
        return;
    }
    let mut cluster = Cluster::new();
    cluster.reconcile();
    let nodes = cluster.send_all("20 pods of two nodes");
    let least = nodes.iter().flatten().copied().fold(f64::MAX, f64::min);
    let fair = RATE / 20.0;
    println!("the least pod has {:.2} of its part", least / fair);
    assert!(least > fair / 2.0, "a pod starves: {nodes:?}");

    // The pods of one node end: at the operator's next division the others have all of it.
    let gone: BTreeMap<_, _> =
        cluster.nodes[1].pods.drain(..).map(|pod| (ObjectKey::new("shop", &pod.name), pod)).collect();
    gone.keys().for_each(|key| cluster.index.remove_pod(key));
    cluster.reconcile();
    cluster.send_all("12 pods of one node, after the others ended");
}
