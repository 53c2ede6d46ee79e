//! The node itself.

use super::*;
use crate::datapath::NODE_UID;

/// An agent whose node shares its machine with others or not.
fn of_node(is_given: bool) -> Reconciler<FakeDatapath> {
    apart(is_given, Apart::AllPods)
}

fn apart(is_given: bool, apart: Apart) -> Reconciler<FakeDatapath> {
    let cgroup = PodCgroup { path: "/sys/fs/cgroup".into(), id: 1 };
    let mut datapath = FakeDatapath::default();
    let mut known = PodCgroups::default();
    known.pods.insert("the root".into(), cgroup.clone());
    datapath.know(&known);
    agent(datapath).with_node(NodeCgroup { cgroup, is_given, apart })
}

fn of_host(agent: &mut Reconciler<FakeDatapath>) -> l7egg_crds::HostReport {
    let outcome = agent.pass().unwrap();
    let report = outcome.reports.values().next().unwrap().status.clone();
    assert!(report.pods.is_empty());
    report.host.unwrap()
}

#[test]
fn a_node_is_enforced_when_its_guard_and_its_pods_are_known() {
    let mut agent = of_node(false);
    list(&mut agent, &[assignment("a").allow("10.0.0.0/8").host()]);
    assert_eq!(of_host(&mut agent).reason, "GuardNotReady");
    assert!(agent.datapath.take_calls().is_empty());
    agent.take(Input::ApiServers(["10.0.0.1:6443".parse().unwrap()].into()));
    assert_eq!(of_host(&mut agent).reason, "NoKubeletCgroups");
    assert!(agent.datapath.take_calls().is_empty());
    cgroups(&mut agent, &["p1"]);
    assert_eq!(pass(&mut agent), ["enforce node"]);
    assert_eq!(agent.datapath.left_alone, [std::path::PathBuf::from("/kubepods")]);
    let report = of_host(&mut agent);
    assert_eq!(report.state, PodState::Enforced);
    assert_eq!(report.guard[0], "API server 10.0.0.1 (TCP 6443)");
    // The API server moves.
    agent.take(Input::ApiServers(["10.0.0.2:6443".parse().unwrap()].into()));
    assert_eq!(pass(&mut agent), ["enforce node"]);
    list(&mut agent, &[]);
    assert_eq!(pass(&mut agent), ["release node"]);
}

/// As on a host without Kubernetes.
#[test]
fn only_what_something_is_in_force_for_is_not_the_nodes() {
    let left_alone = |agent: &Reconciler<FakeDatapath>| agent.datapath.left_alone.clone();
    let mut before = apart(true, Apart::EnforcedPods);
    before.take(Input::ApiServers(Default::default()));
    let host = assignment("host").allow("10.0.0.0/8").host();
    list(&mut before, &[assignment("a").pod("p1"), host.clone()]);
    cgroups(&mut before, &["p1", "p2"]);
    before.pass();
    let own = [before.cgroups.pods["p1"].path.clone()];
    assert_eq!(left_alone(&before), own);

    // An agent that takes over leaves it alone before it knows anything of Eggs.
    let cgroup = before.cgroups.pods[NODE_UID].clone();
    let node = NodeCgroup { cgroup, is_given: true, apart: Apart::EnforcedPods };
    let mut restarted = agent(before.datapath).with_node(node);
    restarted.datapath.left_alone.clear();
    restarted.take(Input::Cgroup(CgroupEvent::Scanned(cgroups_of(&["p1", "p2"]))));
    assert_eq!(left_alone(&restarted), own);

    // Its Egg is gone.
    list(&mut restarted, &[host]);
    restarted.pass();
    assert!(left_alone(&restarted).is_empty());
}

#[test]
fn nodes_that_share_a_machine_have_to_be_told_apart() {
    let shared = |agent: &mut Reconciler<FakeDatapath>| {
        let mut seen = cgroups_of(&[]);
        seen.parents.push("/other/kubepods".into());
        seen.in_use.clone_from(&seen.parents);
        agent.take(Input::Cgroup(CgroupEvent::Scanned(seen)));
    };
    let start = |is_given| {
        let mut agent = of_node(is_given);
        agent.take(Input::ApiServers(["10.0.0.1:6443".parse().unwrap()].into()));
        list(&mut agent, &[assignment("a").host()]);
        agent
    };
    let mut agent = start(false);
    shared(&mut agent);
    assert!(pass(&mut agent).is_empty());
    assert_eq!(of_host(&mut agent).reason, "SeveralKubelets");
    let mut agent = start(true);
    shared(&mut agent);
    assert_eq!(pass(&mut agent), ["enforce node"]);
    // What is in force stays.
    let mut agent = start(false);
    cgroups(&mut agent, &[]);
    assert_eq!(pass(&mut agent), ["enforce node"]);
    shared(&mut agent);
    assert!(pass(&mut agent).is_empty());
    assert_eq!(agent.datapath.left_alone.len(), 2, "the other kubelet's pods are not the node's processes");
    // What a kubelet has left behind is none.
    let mut agent = start(false);
    let mut seen = cgroups_of(&[]);
    seen.parents.push("/left/kubepods".into());
    agent.take(Input::Cgroup(CgroupEvent::Scanned(seen)));
    assert_eq!(pass(&mut agent), ["enforce node"]);
}
