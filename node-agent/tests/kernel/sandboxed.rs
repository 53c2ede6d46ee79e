//! Runtimes that have processes of their own in the pod's cgroup, which are elsewhere than the pod, and whose pods send by no socket
//! that a program on the cgroup sees: gVisor writes frames, Kata forwards a virtual machine's.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use l7egg_node_agent::datapath::{Cover, ToldNetwork};
use l7egg_node_agent::netns::SpecNetwork;

use crate::harness::{Link, Setup};
use crate::netns::in_pod;
use crate::sandbox::sent_raw;

const DENIED: &str = "{egress: []}";
const UNKNOWN: ToldNetwork = ToldNetwork { spec: SpecNetwork::Unknown, addresses: None };
const HOST: ToldNetwork = ToldNetwork { spec: SpecNetwork::Host, addresses: None };

/// Where the runtime's own process is, which is the first in the pod's cgroup.
#[derive(Clone, Copy, Debug)]
enum Begins {
    /// In an empty network, as gVisor's gofer.
    InNone,
    /// In the node's, as Kata's shim with `sandbox_cgroup_only`.
    OnNode,
}

/// A pod of such a runtime.
struct Sandboxed {
    setup: Setup,
    runtimes: Asleep,
    /// In the pod's network: the sentry, or the virtual machine.
    _pods: Asleep,
}

impl Sandboxed {
    fn new(begins: Begins) -> Self {
        let mut setup = Setup::with_link(Link::ByNode);
        setup.pod.end_sandbox();
        let [node, pod] = ["n", "p"].map(|which| format!("{}{which}", setup.pod.uid()));
        let runtimes = match begins {
            Begins::InNone => Asleep::new(setup.pod.cgroup(), &["unshare", "--net"]),
            Begins::OnNode => Asleep::new(setup.pod.cgroup(), &["ip", "netns", "exec", &node]),
        };
        let pods = Asleep::new(setup.pod.cgroup(), &["ip", "netns", "exec", &pod]);
        Self { setup, runtimes, _pods: pods }
    }
}

/// A process that does nothing, and ends with the test.
struct Asleep(Child);

impl Asleep {
    /// In a cgroup, and where a command begins it.
    fn new(cgroup: &Path, begun_by: &[&str]) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(cgroup.join("cgroup.procs"))
            .args(begun_by)
            .args(["sh", "-c", "echo && exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = [0];
        child.stdout.take().expect("its output").read_exact(&mut line).expect("it has begun");
        Self(child)
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_a_sandboxed_pod_writes_to_its_interface_is_judged() {
    for begins in [Begins::InNone, Begins::OnNode] {
        let mut pod = Sandboxed::new(begins);
        pod.setup.enforce_uncovered(DENIED);
        assert_eq!(sent_raw(&pod.setup), ["secret", "ARP"], "{begins:?}: what is seen without the backstop");
        assert_eq!(pod.setup.try_cover(), Cover::Whole, "{begins:?}");
        assert_eq!(sent_raw(&pod.setup), ["ARP"], "{begins:?}");
        pod.setup.restart_agent();
        assert_eq!(pod.setup.try_cover(), Cover::Whole, "{begins:?}: by another agent");
        assert_eq!(sent_raw(&pod.setup), ["ARP"], "{begins:?}");
        // Whoever of the runtime's ends: what was found stays.
        drop(pod.runtimes);
        assert_eq!(pod.setup.try_cover(), Cover::Whole, "{begins:?}");
    }
}

#[test]
fn nothing_leaves_a_sandboxed_pod_that_is_held() {
    let mut pod = Sandboxed::new(Begins::OnNode);
    pod.setup.hold();
    assert_eq!(sent_raw(&pod.setup), ["ARP"], "it is found as others are");
    assert!(!pod.setup.is_on_host_network(), "and is none that the node needs");
}

#[test]
fn a_pod_of_the_nodes_network_that_enters_another_pods_has_no_part_in_it() {
    for told in [HOST, UNKNOWN] {
        let mut pod = Sandboxed::new(Begins::OnNode);
        pod.setup.enforce_uncovered(DENIED);
        assert_eq!(pod.setup.try_cover_told(&told), Cover::NotYet, "{told:?}");
        assert!(pod.setup.backstop().is_empty(), "{told:?}");
        assert!(pod.setup.believed().addresses.is_empty(), "{told:?}");
    }
    // Wherever its oldest process is.
    let mut pod = Setup::with_link(Link::ByNode);
    pod.enforce_uncovered(DENIED);
    assert_eq!(pod.try_cover_told(&HOST), Cover::NotYet);
    assert!(pod.backstop().is_empty());
    assert_eq!(pod.try_cover_told(&UNKNOWN), Cover::Whole, "which nobody says of this one");
}

#[test]
fn connections_of_a_sandboxed_pod_are_looked_for_where_it_is() {
    let mut pod = Sandboxed::new(Begins::OnNode);
    let allowing = "{egress: [{to: [{cidr: 198.18.1.0/24}]}]}";
    pod.setup.enforce(allowing);
    let _held = pod.setup.pod.hold("tcp://198.18.1.1:80");
    pod.setup.settle(allowing);
    pod.setup.enforce(DENIED);
    assert_eq!(pod.setup.settle(DENIED), 1);
}

/// What is told of a pod with these addresses.
fn with(addresses: &[&str]) -> ToldNetwork {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    ToldNetwork { spec: SpecNetwork::Own, addresses: Some(addresses) }
}

#[test]
fn a_pod_whose_addresses_the_runtime_has_taken_has_those_of_its_status() {
    let mut pod = Sandboxed::new(Begins::InNone);
    pod.setup.enforce_uncovered("{egress: [{to: [{cidr: 198.18.0.81/32}]}]}");
    // As gVisor does, whose own stack has them from then on.
    in_pod(&pod.setup.pod, &["ip", "addr", "flush", "dev", "eth0"]);
    let cover = |pod: &mut Sandboxed, told: &[&str]| pod.setup.try_cover_told(&with(told));
    assert_eq!(pod.setup.try_cover(), Cover::NotYet, "nobody tells them");
    assert!(pod.setup.backstop().is_empty(), "a program of its own may ask for some (DHCP)");
    for _ in 0..2 {
        assert_eq!(cover(&mut pod, &[]), Cover::NotYet, "the kubelet has yet to tell");
    }
    assert!(sent_raw(&pod.setup).is_empty(), "until then nothing passes");
    for _ in 0..2 {
        assert_eq!(cover(&mut pod, &["10.77.0.2", "fd77::2"]), Cover::Whole);
        assert_eq!(sent_raw(&pod.setup), ["secret", "ARP"], "what is allowed passes");
    }
    let has = |pod: &Sandboxed, address: &str| pod.setup.believed().addresses.contains(address);
    assert!(has(&pod, "10.77.0.2") && has(&pod, "fd77::2"));
    // It was the one of a sandbox before, which a status has for some seconds more.
    assert_eq!(cover(&mut pod, &["10.77.0.3"]), Cover::Whole);
    assert!(has(&pod, "10.77.0.3") && !has(&pod, "10.77.0.2"));
    // What is added inside is none that the pod was given.
    in_pod(&pod.setup.pod, &["ip", "addr", "add", "10.77.0.9/24", "dev", "eth0"]);
    assert_eq!(cover(&mut pod, &["10.77.0.4"]), Cover::Whole);
    assert!(has(&pod, "10.77.0.4") && !has(&pod, "10.77.0.9"));
    assert_eq!(cover(&mut pod, &[]), Cover::Whole, "what is known stays");
    assert!(has(&pod, "10.77.0.4"));
}
